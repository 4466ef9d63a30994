"""A running guest: QEMU with siw inside, and what tests do with it.

The guest's only network is QEMU's user-mode one. A port of the guest is reached at a port of this machine's 127.0.0.1;
the guest reaches this machine's 127.0.0.1 at HOST_ADDRESS. Nothing of it leaves the loopback interface.
"""

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from scripts.interop.channel import Channel, Finished, Program
from scripts.interop.common import LabError, tail
from scripts.interop.image import Image
from scripts.interop.kernel import SETTINGS

__all__ = ["HOST_ADDRESS", "Guest", "Port", "accelerators"]

HOST_ADDRESS: Final = "10.0.2.2"
"""This machine's 127.0.0.1, as the guest sees it."""
BOOT_S: Final = 120.0
"""Limit for one boot. Emulated it takes under ten seconds on an idle machine."""
END_S: Final = 2.0
"""Limit for a power-off."""
MEMORY_MIB: Final = 1024
PORTS: Final = range(7200, 7232)
"""TCP ports of the guest that are forwarded. A test takes a fresh one, so that no test meets the rest of another."""
_PARAMETERS: Final = "/sys/module/siw/parameters"
_COMMAND_LINE: Final = "console=ttyS0 loglevel=4 panic=-1 net.ifnames=0 mitigations=off random.trust_cpu=on"
_REBOOTS: Final = 2
"""Times to try again. Under emulation a kernel now and then dies in its first second."""


class Port(NamedTuple):
    """A TCP port of the guest, and the port of this machine's 127.0.0.1 that leads there."""

    guest: int
    here: int


@dataclass(frozen=True, slots=True)
class _Accelerator:
    name: str
    arguments: tuple[str, ...]


_KVM: Final = _Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"))
_TCG: Final = _Accelerator("tcg", ("-accel", "tcg", "-cpu", "max"))


def accelerators() -> list[_Accelerator]:
    """What to try, best first. /dev/kvm alone is not enough: without vmx or svm below, a stock kernel dies in it."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    usable = os.access("/dev/kvm", os.W_OK) and re.search(r"\b(vmx|svm)\b", flags) is not None
    return [_KVM, _TCG] if usable else [_TCG]


class Guest:
    """One booted guest. `with` powers it off. log: QEMU's and the kernel's output, a file that outlives the guest."""

    def __init__(self, image: Image, log: Path) -> None:
        """Boot. Raises: LabError: the reason, with the end of the log."""
        self.image = image
        self.log = log
        self.accelerator = ""
        self._folder = Path(tempfile.mkdtemp(prefix="softndk-guest-"))
        self._forwards: dict[int, int] = {}
        self._turn = itertools.cycle(PORTS)
        self._serials = 0
        self._qemu: subprocess.Popen[bytes] | None = None
        self._channel: Channel
        begun = time.monotonic()
        reasons: list[str] = []
        for accelerator in [*accelerators()[:-1], *[_TCG] * (1 + _REBOOTS)]:
            try:
                self._boot(accelerator)
                break
            except (OSError, LabError) as error:
                reasons.append(f"{accelerator.name}: {self._why(error)}")
                self._end()
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
            said = self.log.read_text(encoding="utf-8", errors="replace")
            raise LabError(
                "the guest can't be booted:\n  " + "\n  ".join(reasons) + f"\nthe end of {self.log}:\n{tail(said)}"
            )
        self.boot_s = time.monotonic() - begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Power off."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- programs and files

    def start(self, *argv: str | int) -> Program:
        """Start a program in the guest."""
        return Program(self._channel, [str(part) for part in argv])

    def run(self, *argv: str | int, seconds: float = 60.0) -> Finished:
        """Run a program in the guest to its end. Raises: LabError: it takes longer."""
        with self.start(*argv) as program:
            return program.wait(seconds)

    @contextmanager
    def serving(self, port: Port, *argv: str | int, seconds: float = 60.0) -> Iterator[Program]:
        """Run a program that listens on `port`; entered when it does. Raises: LabError: it ends or does not listen."""
        with self.start(*argv) as program:
            try:
                self.wait_for_listener(port, seconds=seconds)
            except LabError as error:
                said = "\n".join(program.printed())
                raise LabError(f"{' '.join(program.argv)}: {error}:\n{said}") from None
            yield program

    def wait_for_listener(self, port: Port, *, seconds: float = 60.0) -> None:
        """Wait until somebody in the guest listens on `port`. Raises: LabError: nobody does."""
        if not self._channel.call("listening", wait_s=seconds, port_number=port.guest, seconds=seconds):
            raise LabError(f"nobody listens on the guest's port {port.guest} after {seconds:g} s")

    def read(self, path: str) -> bytes:
        """A file of the guest."""
        data: bytes = self._channel.call("read", path=path)
        return data

    def write(self, path: str, data: bytes) -> None:
        """Make a file in the guest."""
        self._channel.call("write", path=path, data=data)

    @property
    def kernel_fault(self) -> str:
        """The first line with which the guest's kernel has reported a bug of its own, or ""."""
        said = self.log.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^.*(kernel BUG at|Oops|Kernel panic|BUG: ).*$", said, re.MULTILINE)
        return found[0].strip() if found else ""

    # ---- siw

    def next_port(self) -> Port:
        """A port for one listener; they are taken in turn."""
        guest = next(self._turn)
        return Port(guest, self._forwards[guest])

    @contextmanager
    def settings(self, **values: int) -> Iterator[None]:
        """siw's parameters for connections that begin inside the `with`; the ones before come back after it.

        Names: those of SETTINGS, 0 or 1, and mpa_version, 1 or 2.
        """
        unknown = set(values) - {*SETTINGS, "mpa_version"}
        if unknown:
            raise LabError(f"siw has no setting {', '.join(sorted(unknown))}")
        before = {name: self.read(f"{_PARAMETERS}/{name}") for name in values}
        try:
            for name, value in values.items():
                self.write(f"{_PARAMETERS}/{name}", b"%d" % value)
            yield
        finally:
            for name, data in before.items():
                self.write(f"{_PARAMETERS}/{name}", data)

    @contextmanager
    def capture(self, target: Path, port: int) -> Iterator[None]:
        """Write what the guest sees of TCP `port` to `target`, a pcap file."""
        self._serials += 1
        inside = f"/tmp/capture.{self._serials}"
        with self.start(
            "tcpdump", "-Z", "root", "-i", "any", "--immediate-mode", "-U", "-w", inside, f"tcp port {port}"
        ) as tcpdump:
            deadline = time.monotonic() + 10
            while "listening on" not in tcpdump.printed()[1]:
                if time.monotonic() > deadline:
                    raise LabError(f"tcpdump does not start: {tcpdump.printed()[1]}")
            try:
                yield
            finally:
                tcpdump.stop(signal.SIGINT)  # it writes what it still holds
                target.write_bytes(self.read(inside))

    # ---- QEMU

    def _boot(self, accelerator: _Accelerator) -> None:
        address = self._folder / "agent"
        address.unlink(missing_ok=True)
        self._forwards = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))  # others may have taken the last ones
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{guest}" for guest, here in self._forwards.items())
        with open(self.log, "ab") as log:
            self._qemu = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # it must not outlive whoever started it
                    "qemu-system-x86_64",
                    *("-M", "q35", *accelerator.arguments, "-m", str(MEMORY_MIB)),
                    # a second CPU under emulation makes nothing faster and, at times, the kernel die
                    *("-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
                    *("-serial", "stdio", "-monitor", "none"),
                    *("-kernel", str(self.image.kernel), "-initrd", str(self.image.initramfs)),
                    *("-append", _COMMAND_LINE),
                    *("-netdev", f"user,id=net0,ipv6=off{forwards}", "-device", "virtio-net-pci,netdev=net0,romfile="),
                    *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
                    *("-chardev", f"socket,id=agent,path={address},server=on,wait=off"),
                    *("-device", "virtserialport,chardev=agent,name=softndk.agent"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests; they end the guest
            )
        deadline = time.monotonic() + BOOT_S
        connection = self._connect(address, self._qemu, deadline)
        self._channel = Channel(connection)
        self._channel.begin(max(0.1, deadline - time.monotonic()))
        self.accelerator = accelerator.name

    def _connect(self, address: Path, qemu: subprocess.Popen[bytes], deadline: float) -> socket.socket:
        """Connect to QEMU's end of the agent's port, as soon as it is there."""
        while time.monotonic() < deadline and qemu.poll() is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(address))
            except OSError:
                connection.close()
                with suppress(subprocess.TimeoutExpired):
                    qemu.wait(0.05)
                continue
            return connection
        raise LabError("QEMU does not open the agent's port")

    def _why(self, error: OSError | LabError) -> str:
        """The reason for which a boot has failed."""
        if isinstance(error, TimeoutError):
            return f"it was not up after {BOOT_S:g} s"
        if self._qemu is not None:
            with suppress(subprocess.TimeoutExpired):
                return f"QEMU has ended with status {self._qemu.wait(1)}"
        return str(error)

    def _end(self) -> None:
        """End QEMU, by its own power-off if it comes soon."""
        if hasattr(self, "_channel"):
            self._channel.close()
        if self._qemu is None:
            return
        try:
            self._qemu.wait(END_S)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
            self._qemu.wait()
        self._qemu = None


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has now; somebody could take one before QEMU does, then it says so and ends."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
