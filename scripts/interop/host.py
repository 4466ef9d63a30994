"""What the machine must have to build and run the guest, and installing what it lacks. Debian and its kin only."""

import os
import shutil
from pathlib import Path
from typing import Final

from scripts.interop.common import LabError, Progress, call

__all__ = ["install", "missing_packages"]

_COMMANDS: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "depmod": "kmod",
    "cpio": "cpio",
    "zstd": "zstd",
    "xz": "xz-utils",
    "tar": "tar",
    "make": "make",
    "strip": "binutils",
    "setpriv": "util-linux",
}
"""Command: the package that has it. The compiler is not here: which one is needed, the kernel's headers say."""
LOCK_S: Final = 300
"""How long apt waits for another apt."""
_SYSTEM_PATHS: Final = ("/usr/sbin", "/sbin")


def missing_packages(*more: str) -> list[str]:
    """The packages to install; `more` are asked for by name, besides those that the lab always needs."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_PATHS))
    lacking = [package for command, package in _COMMANDS.items() if shutil.which(command, path=path) is None]
    return lacking + [package for package in more if not _is_installed(package)]


def install(progress: Progress, *more: str) -> None:
    """Install what is missing, by apt. Raises: LabError: no apt, not root, or apt has failed."""
    lacking = missing_packages(*more)
    if not lacking:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"missing: {' '.join(lacking)} (Debian's names); this machine has no apt-get")
    if os.geteuid() != 0:
        raise LabError(f"missing: {' '.join(lacking)}. As root: apt-get install --no-install-recommends <these>")
    progress(f"installing {' '.join(lacking)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    call(["apt-get", "update"], env=env)
    wait = ("--option", f"DPkg::Lock::Timeout={LOCK_S}")
    call(["apt-get", *wait, "install", "--yes", "--no-install-recommends", *lacking], env=env)


def _is_installed(package: str) -> bool:
    if not Path("/var/lib/dpkg/status").exists():
        return False
    try:
        found = call(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package])
    except LabError:
        return False
    return found.startswith(b"ii")
