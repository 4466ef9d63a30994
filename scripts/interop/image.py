"""The guest's image and its cache.

An image is two files, a kernel and an initramfs with everything in it. The folder that holds them is named after the
scripts that build them, so that a changed script, or another kernel series asked for, builds a new one. Packages that
were fetched stay beside it.

SOFTNDK_LAB_CACHE names the cache; else it is ~/.cache/softndk-lab, or /var/tmp/softndk-lab where that can't be written.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.interop import host, kernel, userland
from scripts.interop.common import LabError, Progress, call

__all__ = ["Image", "build", "cache_folder", "find"]

_HERE: Final = Path(__file__).parent
_MADE_BY: Final = ("common.py", "image.py", "init", "kernel.py", "userland.py")
_KEPT: Final = 2
"""Images that stay in the cache, the newest ones: a branch and its parent can take turns."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built guest. versions: of its kernel and its main packages, by name."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs.zst"

    @property
    def versions(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "versions.json").read_text(encoding="utf-8"))
        return found


def cache_folder() -> Path:
    """Where images and packages are kept; it exists. Raises: LabError."""
    named = os.environ.get("SOFTNDK_LAB_CACHE")
    places = [Path(named)] if named else [Path.home() / ".cache/softndk-lab", Path("/var/tmp/softndk-lab")]
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place.resolve()
    raise LabError(f"no cache folder can be written: {', '.join(map(str, places))}; SOFTNDK_LAB_CACHE names another")


def find() -> Image:
    """The image that belongs to these scripts. Raises: LabError: it has not been built."""
    folder = _folder()
    if not folder.is_dir():
        raise LabError(f"no guest image {folder}; build it: python -m scripts.interop build (`make interop` does)")
    return Image(folder)


def build(progress: Progress) -> Image:
    """The image, built if there is none yet; takes minutes then. Raises: LabError."""
    folder = _folder()
    with _locked(folder.parent):
        if not folder.is_dir():
            _check_path(folder)
            _build(folder, progress)
            _forget_old(folder)
    host.install(progress)  # to boot it; a cached image says nothing of this machine
    return Image(folder)


def _folder() -> Path:
    digest = hashlib.sha256((kernel.wanted_series() or "").encode())
    for name in _MADE_BY:
        digest.update((_HERE / name).read_bytes())
    return cache_folder() / f"image-{digest.hexdigest()[:16]}"


def _check_path(folder: Path) -> None:
    if any(sign in str(folder) for sign in " :'\""):
        raise LabError(
            f"the kernel's makefiles can't work under {folder.parent}; set SOFTNDK_LAB_CACHE to another path"
        )


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One build at a time; who comes second finds it done."""
    with open(cache / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path, progress: Progress) -> None:
    downloads = folder.parent / "packages"
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as temporary:
        work = Path(temporary)
        progress(f"building the guest in {work}")
        host.install(progress)
        if os.geteuid() == 0:
            call(["apt-get", "update"])
        made = kernel.build(work, downloads / "kernel", progress)
        root = work / "root"
        versions = userland.build(root, downloads / "userland", progress)
        _add_start(root, made)
        image = work / "image"
        image.mkdir()
        shutil.copyfile(made.image, image / "vmlinuz")
        progress("packing")
        (image / "initramfs.zst").write_bytes(_packed(root))
        found: dict[str, Any] = {"linux": f"{made.release} ({made.version})", **versions}
        (image / "versions.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        image.rename(folder)
    octets = sum(file.stat().st_size for file in folder.iterdir())
    progress(f"built {folder}, {octets / 1e6:.0f} MB")


def _add_start(root: Path, made: kernel.Kernel) -> None:
    """What the guest starts with: the first process, and the modules it loads."""
    shutil.copyfile(_HERE / "init", root / "init")
    (root / "init").chmod(0o755)
    modules = root / "modules"
    modules.mkdir()
    for module in made.modules:
        shutil.copyfile(module, modules / module.name)
    (modules / "order").write_text("\n".join(module.name for module in made.modules) + "\n", encoding="utf-8")


def _packed(root: Path) -> bytes:
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*"))) + "\n"
    archive = call(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=root, octets=names.encode())
    return call(["zstd", "-q", "-6", "-T0", "-c"], octets=archive)


def _forget_old(folder: Path) -> None:
    """Remove all images but the newest, and what interrupted builds have left."""
    for path in folder.parent.glob("build-*"):
        shutil.rmtree(path, ignore_errors=True)
    images = sorted(folder.parent.glob("image-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in images[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
