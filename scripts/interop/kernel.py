"""The guest's kernel: Debian's image, and siw.ko, which Debian does not build, from the matching source package.

In mainline, siw's settings are constants of the source; here they become module parameters, so that a test can change
them while the guest runs. Nothing else of the driver is touched.
"""

import lzma
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.interop import host
from scripts.interop.common import LabError, Progress, call

__all__ = ["SETTINGS", "Kernel", "build", "wanted_series"]

SERIES: Final = "6.12"
"""The kernel series to take where apt has it, else the release's own one. SOFTNDK_LAB_KERNEL names another."""
SETTINGS: Final = ("mpa_crc_required", "mpa_crc_strict", "peer_to_peer", "try_gso", "siw_tcp_nagle", "zcopy_tx")
"""siw's switches; mpa_version, a number, comes on top."""
LOADED: Final = ("virtio_pci", "virtio_console", "virtio_rng", "virtio_net", "rdma_ucm", "siw")
"""Modules that the guest loads at its start, with what they need."""
_SIW: Final = "drivers/infiniband/sw/siw"


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the image needs of the kernel. release: as `uname -r` says it. modules: files to load, in this order."""

    release: str
    version: str
    image: Path
    modules: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Packages:
    series: str
    release: str
    version: str
    headers: tuple[str, ...]
    compiler: str

    @property
    def names(self) -> tuple[str, ...]:
        """All to download, in this version."""
        return (f"linux-image-{self.release}", *self.headers, f"linux-source-{self.series}")


def build(work: Path, downloads: Path, progress: Progress) -> Kernel:
    """Download, compile siw, and collect the modules under `work`. Raises: LabError."""
    packages = _choose()
    progress(f"kernel {packages.release}, package version {packages.version}")
    host.install(progress, packages.compiler, "libelf1")
    files = _download(packages, downloads)
    unpacked = work / "kernel"
    for name in packages.names[:-1]:
        call(["dpkg-deb", "-x", files[name], unpacked])
    progress("unpacking the source of siw")
    source = _unpack_siw(files[packages.names[-1]], work)
    _make_parameters(source)
    progress("compiling siw.ko")
    module = _compile(packages, unpacked, source)
    return Kernel(
        packages.release,
        packages.version,
        unpacked / "boot" / f"vmlinuz-{packages.release}",
        _collect(packages.release, unpacked, module, work / "modules"),
    )


def wanted_series() -> str | None:
    """The series that the user insists on."""
    return os.environ.get("SOFTNDK_LAB_KERNEL") or None


def _choose() -> _Packages:
    """The newest kernel that apt offers of the series, with everything that belongs to it. Raises: LabError."""
    wanted = wanted_series()
    for meta in (f"linux-image-{wanted or SERIES}-amd64", "linux-image-amd64"):
        image = next(iter(_depends(meta, "linux-image-")), "")
        series = re.match(r"linux-image-(\d+\.\d+)", image)
        if series and wanted in (None, series[1]) and _shown(f"linux-source-{series[1]}"):
            break
    else:
        raise LabError(f"apt offers no kernel {wanted or SERIES} with its source (amd64 only); is its list up to date?")
    release = image.removeprefix("linux-image-")
    version = re.search(r"^Version: (\S+)", _shown(image), re.MULTILINE)
    headers = f"linux-headers-{release}"
    parts = _depends(headers, "linux-headers-", "linux-kbuild-")
    compilers = re.findall(r"gcc-\d+", " ".join(_depends(headers, "linux-compiler-gcc-", "gcc-")))
    if version is None or not compilers:
        raise LabError(f"apt-cache says too little of {image} and {headers}")
    return _Packages(series[1], release, version[1], (headers, *parts), compilers[0])


def _shown(package: str) -> str:
    """What apt-cache shows of `package`, newest version first; nothing if there is none."""
    try:
        return call(["apt-cache", "show", package]).decode()
    except LabError:
        return ""


def _depends(package: str, *prefixes: str) -> list[str]:
    try:
        said = call(["apt-cache", "depends", "--no-recommends", "--no-suggests", package]).decode()
    except LabError:
        return []
    found = re.findall(r"^\s*Depends: (\S+)", said, re.MULTILINE)
    return [name for name in found if name.startswith(prefixes)]


def _download(packages: _Packages, downloads: Path) -> dict[str, Path]:
    """Files by package name; what is there already is not fetched again."""
    found = {name: _downloaded(downloads, name, packages.version) for name in packages.names}
    lacking = [f"{name}={packages.version}" for name, file in found.items() if file is None]
    if lacking:
        downloads.mkdir(parents=True, exist_ok=True)
        call(["apt-get", "download", "--option", "APT::Sandbox::User=root", *lacking], cwd=downloads)
    files = {name: file or _downloaded(downloads, name, packages.version) for name, file in found.items()}
    for name, file in files.items():
        if file is None:
            raise LabError(f"apt-get download has left no file of {name} {packages.version}")
    return {name: file for name, file in files.items() if file is not None}


def _downloaded(downloads: Path, name: str, version: str) -> Path | None:
    quoted = version.replace(":", "%3a")
    return next((file for file in downloads.glob(f"{name}_*.deb") if file.name.split("_")[1] == quoted), None)


def _unpack_siw(package: Path, work: Path) -> Path:
    unpacked = work / "source"
    call(["dpkg-deb", "-x", package, unpacked])
    archive = next((unpacked / "usr/src").glob("linux-source-*.tar.xz"))
    # the archive has the folder once, among 80,000 files; xz is what takes the time
    call(["tar", "-xf", archive, "-C", unpacked, "--wildcards", f"*/{_SIW}"])
    return next(unpacked.glob(f"linux-source-*/{_SIW}"))


def _make_parameters(source: Path) -> None:
    """Turn siw's constants into module parameters. Raises: LabError: the source does not have them as expected."""
    main, header = source / "siw_main.c", source / "siw.h"
    code, declared = main.read_text(encoding="utf-8"), header.read_text(encoding="utf-8")
    for name in SETTINGS:
        code, defined = re.subn(rf"^const bool {name}\b", f"bool {name}", code, flags=re.MULTILINE)
        declared, known = re.subn(rf"^extern const bool {name};", f"extern bool {name};", declared, flags=re.MULTILINE)
        if (defined, known) != (1, 1):
            raise LabError(f"siw's source defines the constant {name} {defined} times and declares it {known} times")
        code += f"module_param({name}, bool, 0644);\n"
    if "u_char mpa_version" not in code or "const u_char mpa_version" in code:
        raise LabError("siw's source does not define mpa_version as a variable of type u_char")
    main.write_text(code + "module_param(mpa_version, byte, 0644);\n", encoding="utf-8")
    header.write_text(declared, encoding="utf-8")


def _compile(packages: _Packages, unpacked: Path, source: Path) -> Path:
    headers = unpacked / "usr/src" / f"linux-headers-{packages.release}"
    makefile = headers / "Makefile"
    text = makefile.read_text(encoding="utf-8")
    makefile.write_text(text.replace("include /usr/src/", f"include {unpacked}/usr/src/"), encoding="utf-8")
    call(
        [
            "make",
            "-s",
            "-C",
            headers,
            f"M={source}",
            "CONFIG_RDMA_SIW=m",
            "CONFIG_DEBUG_INFO_BTF_MODULES=",  # would need the kernel's own vmlinux with its debug information
            f"-j{os.cpu_count() or 1}",
            "modules",
        ]
    )
    return source / "siw.ko"


def _collect(release: str, unpacked: Path, siw: Path, target: Path) -> tuple[Path, ...]:
    """Put the modules of LOADED and those they need into `target`, uncompressed, and say in which order they load."""
    root = unpacked if (unpacked / "lib/modules" / release).is_dir() else unpacked / "usr"
    updates = root / "lib/modules" / release / "updates"
    updates.mkdir()
    call(["strip", "--strip-debug", "-o", updates / "siw.ko", siw])
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    call(["depmod", "-b", root, release], env=path)
    order: list[Path] = []
    for name in LOADED:
        said = call(["modprobe", "-d", root, "-S", release, "--show-depends", name], env=path).decode()
        order += [Path(line.split()[1]) for line in said.splitlines() if line.startswith("insmod ")]
    target.mkdir()
    return tuple(_plain(file, target) for file in dict.fromkeys(order))


def _plain(file: Path, target: Path) -> Path:
    if file.suffix == ".xz":
        plain = target / file.stem
        plain.write_bytes(lzma.decompress(file.read_bytes()))
    else:
        plain = target / file.name
        shutil.copyfile(file, plain)
    return plain
