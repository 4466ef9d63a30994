"""Brings every generated part of the documents up to date; ``--check`` only compares, and fails if one is not.

Run: ``python -m scripts.docs.update`` from the project's root.
"""

import sys

from scripts.docs import (
    api_reference,
    cli_reference,
    error_reference,
    error_table,
    limits_reference,
    object_reference,
    peer_reference,
    peer_siw,
    rules_reference,
    state_diagram,
    store_picture,
    supported_reference,
)
from scripts.docs.generated import Generated

PAGES: tuple[Generated, ...] = (
    *state_diagram.PAGES,
    store_picture.PICTURE,
    *object_reference.PAGES,
    api_reference.PAGE,
    error_reference.PAGE,
    error_table.PAGE,
    cli_reference.PAGE,
    limits_reference.PAGE,
    peer_reference.PAGE,
    peer_siw.PAGE,
    rules_reference.PAGE,
    supported_reference.PAGE,
)

if __name__ == "__main__":
    sys.exit(max(page.main() for page in PAGES))
