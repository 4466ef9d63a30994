"""The guest's programs: Debian packages with all they depend on, unpacked into one folder and made small.

They are unpacked, not installed: no maintainer script runs, and nothing needs root. What such a script would have done
and the guest misses is made here.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from scripts.interop.common import LabError, Progress, call

__all__ = ["PACKAGES", "build"]

PACKAGES: Final = (
    "busybox-static",
    "python3-minimal",
    "iproute2",
    "rdmacm-utils",
    "ibverbs-utils",
    "ibverbs-providers",
    "perftest",
    "tcpdump",
)
_LEFT_OUT: Final = (
    "usr/share",
    "usr/include",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "var/lib",
    "etc/apparmor.d",
)
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}


def build(target: Path, downloads: Path, progress: Progress) -> dict[str, str]:
    """Fill `target`; versions by package name. Raises: LabError."""
    downloads.mkdir(parents=True, exist_ok=True)
    files = _download(target.parent, downloads)
    progress(f"unpacking {len(files)} packages of the guest's userland")
    target.mkdir()
    for file in files:
        call(["dpkg-deb", "-x", file, target])
    for path in _LEFT_OUT:
        shutil.rmtree(target / path, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):  # where the release has merged them into /usr, the links are missing
        if not (target / name).exists():
            (target / name).symlink_to(f"usr/{name}")
    for path, text in _FILES.items():
        (target / path).write_text(text, encoding="utf-8")
    shell = target / "bin/sh"
    if not shell.exists():
        shell.symlink_to("busybox")
    versions = (file.name.removesuffix(".deb").split("_") for file in files)
    return {name: version.replace("%3a", ":") for name, version, _ in versions if name in PACKAGES}


def _download(work: Path, downloads: Path) -> list[Path]:
    """The packages and everything that they depend on: apt works it out for a machine that has nothing."""
    nothing = work / "no-packages"
    nothing.write_text("", encoding="utf-8")
    (downloads / "partial").mkdir(exist_ok=True)
    apt = ["apt-get", "--quiet=2", "--yes", "--no-install-recommends"]
    for name, value in {
        "Dir::State::status": nothing,
        "Dir::Cache::archives": downloads,
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",  # nothing is installed
    }.items():
        apt += ["--option", f"{name}={value}"]
    planned = call([*apt, "--print-uris", "-o", "Dir::Cache::archives=/nonexistent", "install", *PACKAGES]).decode()
    names = re.findall(r"^'\S+' (\S+\.deb) ", planned, re.MULTILINE)
    if not names:
        raise LabError("apt-get plans to fetch nothing for the guest's userland")
    call([*apt, "--download-only", "install", *PACKAGES])
    return [downloads / name for name in names]
