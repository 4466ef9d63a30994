"""A plugin for a run of the tests in which every connection of every adapter is recorded, so that tshark can judge it.

    python -m pytest -p tests.capturing --captures DIRECTORY tests/ndk

Each test module gets a capture, and beside it a list of the addresses that were ours: the other ends are raw peers, which
break rules on purpose. Adapters in processes that a test starts are not seen.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softndk.drivers.sockets import Address
from softndk.drivers.tcp import Octets, Tap, TcpStream
from softndk.trace import CaptureWriter

__all__ = ["Recorder"]


class Blind:
    """A tap that notes nothing."""

    def opened(self) -> None: ...
    def sent(self, data: Octets) -> None: ...
    def received(self, data: Octets) -> None: ...
    def fin_sent(self) -> None: ...
    def fin_received(self) -> None: ...
    def reset(self, by_peer: bool) -> None: ...
    def closed(self) -> None: ...


class Recorder:
    """The capture that is being written, and whose ends in it are ours."""

    def __init__(self) -> None:
        self.writer: CaptureWriter | None = None
        self.ours: list[tuple[Address, Address]] = []

    def tap(self, local: Address, peer: Address, active: bool) -> Tap:
        """Of a connection between two of our ends only the one that is up first looks on: what it sees is in order."""
        assert self.writer is not None
        self.ours.append((local, peer))
        if (peer, local) in self.ours:
            return Blind()
        return self.writer.stream(local, peer, active=active)

    def begin(self, path: Path) -> None:
        self.writer = CaptureWriter(path)
        self.ours = []

    def end(self) -> None:
        assert self.writer is not None
        self.writer.close()
        assert self.writer.error is None
        path = Path(self.writer.path)
        path.with_suffix(".json").write_text(json.dumps(self.ours))
        self.writer = None


RECORDER = Recorder()


class RecordedStream(TcpStream):
    """Tapped, unless the test traces it itself."""

    __slots__ = ("_is_active",)

    def __init__(self, *args: Any, tap: Any = None, **kinds: Any) -> None:
        super().__init__(*args, tap=tap or self._tap_it, **kinds)
        self._is_active = False

    def connect(self, *args: Any, **kinds: Any) -> None:
        self._is_active = True
        super().connect(*args, **kinds)

    def _tap_it(self, local: Address, peer: Address) -> Tap:
        return RECORDER.tap(local, peer, self._is_active)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--captures", metavar="DIRECTORY", type=Path, required=True, help="where the captures go")


@pytest.fixture(scope="module", autouse=True)
def _capture(request: pytest.FixtureRequest) -> Iterator[None]:
    directory: Path = request.config.getoption("captures")
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", request.node.nodeid.removesuffix(".py"))
    RECORDER.begin(directory / f"{name}.pcapng")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softndk.ndk.streams.TcpStream", RecordedStream)
        yield
    RECORDER.end()
