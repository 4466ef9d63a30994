"""The group: version, help, loading, and how a failure ends."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import softndk
from softndk.cli import main
from softndk.cli import main as exported
from tests.cli.processes import environment, run


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"softndk, version {softndk.__version__}\n")


def test_help_has_an_example_of_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    examples = done.stdout.partition("Examples:")[2]
    for command in ("demo", "info", "ping", "trace"):
        assert f"softndk {command}" in examples
        assert f"\n  {command}  " in done.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("command", ["info", "ping"])
def test_help_of_a_command_has_examples(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"softndk {command}" in done.stdout.partition("Examples:")[2]


def test_the_package_exports_the_command() -> None:
    assert exported is main


@pytest.mark.parametrize("arguments", [["nonsense"], ["info", "--nonsense"], ["ping"], ["info", "--version", "3.0"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr


def test_a_failure_is_one_line_and_status_1() -> None:
    done = run("info", "--address", "192.0.2.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("softndk: open_adapter: address '192.0.2.1'")
    assert done.stderr.count("\n") == 1


def test_verbose_explains_a_failure() -> None:
    done = run("--verbose", "info", "--address", "192.0.2.1")
    assert done.returncode == 1
    assert done.stderr.startswith("softndk: INVALID_ADDRESS: open_adapter: address '192.0.2.1'")


def test_only_the_called_command_is_loaded() -> None:
    """A command that is broken or missing harms no other, and starting one does not load all."""
    program = (
        "import sys; from softndk.cli import main;"
        "main(['info', '--json'], standalone_mode=False);"
        "print([name for name in sorted(sys.modules) if name.startswith('softndk.cli.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True
    )
    loaded = done.stdout.splitlines()[-1]
    assert "softndk.cli.info" in loaded
    for other in ("ping", "demo", "trace"):
        assert f"softndk.cli.{other}" not in loaded


def test_a_missing_command_is_told_and_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "softndk.cli.trace", None)
    missing = CliRunner().invoke(main, ["trace", "--help"])
    assert missing.exit_code == 1
    assert "no 'trace'" in missing.output
    assert CliRunner().invoke(main, ["info", "--json"]).exit_code == 0
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0


def test_an_interrupt_that_nobody_takes_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(softndk, "open_adapter", interrupted)
    assert CliRunner().invoke(main, ["info"]).exit_code == 130
