"""`python -m softndk.cli`: the command without its console script."""

from softndk.cli.main import main

main(prog_name="softndk")
