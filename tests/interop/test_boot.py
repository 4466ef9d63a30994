"""A guest that can't be booted fails the tests and says why; these tests need QEMU, and no guest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.interop import image
from scripts.interop.common import LabError
from scripts.interop.guest import Guest

ROOT = Path(__file__).parents[2]
TRIES = 3
QEMU = "qemu: "
"""How its own words begin."""


@pytest.fixture
def broken_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache whose image has a kernel that is none."""
    monkeypatch.setenv("SOFTNDK_LAB_CACHE", str(tmp_path))
    with pytest.raises(LabError, match=r"no guest image .*; build it: python -m scripts\.interop build") as missing:
        image.find()
    folder = tmp_path / next(word for word in str(missing.value).split() if "image-" in word).rstrip(";")
    folder.mkdir()
    for name in ("vmlinuz", "initramfs.zst"):
        (folder / name).write_bytes(b"neither a kernel nor anything else")
    (folder / "versions.json").write_text('{"linux": "none"}', encoding="utf-8")
    return tmp_path


def test_the_reason_and_the_log(broken_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError) as failure:
        Guest(image.find(), tmp_path / "serial.log")
    said = str(failure.value)
    assert said.startswith("the guest can't be booted:\n")
    assert said.count("QEMU has ended with status 1") == TRIES
    assert QEMU in said.partition("the end of")[2]


@pytest.mark.smoke
def test_every_test_fails_with_the_reason_after_one_attempt(broken_cache: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    options = ("-q", "-m", "smoke", "-k", "rping", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'pytest'}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/interop"],
        cwd=ROOT,
        env={**os.environ, "SOFTNDK_INTEROP_RESULTS": str(results)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert " passed" not in done.stdout
    assert "the guest can't be booted" in done.stdout
    assert '"result": "error in setup"' in results.read_text(encoding="utf-8")
    (log,) = (tmp_path / "pytest").rglob("serial.*.log")  # one guest was tried
    assert log.read_text(encoding="utf-8").count(QEMU) == TRIES
