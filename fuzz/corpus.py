"""Kept inputs: a text file for each target, an input a line, as hexadecimal. Lines with # are remarks.

corpus/TARGET.txt    inputs that together cover what the campaigns have reached, as small as possible
findings/TARGET.txt  inputs that once failed, each with a remark that says why
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "kept", "name_of", "replayed", "unpack", "write"]

FOLDER: Final = Path(__file__).parent


def _read(path: Path) -> Iterator[bytes]:
    if path.exists():
        for line in path.read_text(encoding="ascii").splitlines():
            if line and not line.startswith("#"):
                yield bytes.fromhex(line)


def kept(target: str) -> list[bytes]:
    """The corpus of a target."""
    return list(_read(FOLDER / "corpus" / f"{target}.txt"))


def replayed(target: str) -> list[bytes]:
    """Everything of a target that a test replays: once failed, and corpus."""
    return [*_read(FOLDER / "findings" / f"{target}.txt"), *kept(target)]


def name_of(data: bytes) -> str:
    """A short name for an input."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]


def unpack(inputs: Iterable[bytes], folder: Path) -> None:
    """One file for each input, as libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / name_of(data)).write_bytes(data)


def write(target: str, inputs: Iterable[bytes]) -> int:
    """Make these the corpus of a target; how many there are."""
    ordered = sorted(set(inputs), key=lambda data: (len(data), data))
    path = FOLDER / "corpus" / f"{target}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(data.hex() + "\n" for data in ordered), encoding="ascii")
    return len(ordered)
