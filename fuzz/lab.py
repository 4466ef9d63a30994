"""The surroundings of a core under test: one adapter's tokens, an arena of memory, and a neighbour.

Two connections of one adapter, one protection domain and one pair of CQs: the victim, which gets the fuzzer's octets,
and the neighbour, which must not notice. Everything is the same in every run: tokens are drawn from a seed, the clock is
a number.
"""

from collections.abc import Callable
from typing import Final

from fuzz.judge import Memory
from fuzz.numbers import draw_from
from fuzz.octets import REPLY_KEY, REQUEST_KEY, fpdu, startup_frame, tagged, untagged
from softndk.config import IwarpConfig
from softndk.datapath import open_datapath
from softndk.flags import CqNotify, LocalToken
from softndk.iwarp.connection import Connection
from softndk.iwarp.events import Event, Finish
from softndk.iwarp.flow import READ_MOST
from softndk.iwarp.negotiation import Initiator
from softndk.iwarp.stream import Stream, StreamParameters
from softndk.memory.access import MemoryAccess
from softndk.memory.buffers import Mdl
from softndk.memory.regions import FastRegion, Region, Window
from softndk.memory.sge import Sge
from softndk.memory.tokens import ProtectionDomain, Right, Scope, TokenEntry, TokenTable
from softndk.queues.completion import CompletionRing
from softndk.queues.pair import QueuePair
from softndk.queues.shared import SharedReceives
from softndk.queues.work import ReceiveRequest
from softndk.results import Result
from softndk.status import Status

__all__ = ["ARENA", "Adapter", "End", "Neighbour"]

ARENA: Final = 8192
_R, _W, _L = Right.REMOTE_READ, Right.REMOTE_WRITE, Right.LOCAL_WRITE
_ALL: Final = _R | _W | _L | Right.REMOTE_ATOMIC
_TOP: Final = 1 << 64
_FILL: Final = bytes(index * 7 % 251 for index in range(ARENA))

_REGIONS: Final = (  # name, place in the arena, octets, address, rights, of our PD
    ("main", 512, 1024, 0x10000, _ALL, True),
    ("readable", 2048, 256, 0x20000, _R, True),
    ("writable", 2560, 256, 0x30000, _W | _L, True),
    ("foreign", 3072, 256, 0x40000, _ALL, False),
    ("top", 4608, 256, _TOP - 256, _ALL, True),
    ("inbox", 5120, 1024, 0x70000, _L, True),
    ("sink", 6400, 512, 0x80000, _L, True),
    ("neighbour", 7168, 256, 0x90000, _ALL, True),
    ("letterbox", 7680, 128, 0xA0000, _L, True),
)
_FAST: Final = (("fast", 3584, 256, 0x50000), ("fast2", 4096, 256, 0x60000))


class Adapter:
    """Memory and tokens. `memories`: each of them as the judge knows it, by name; `tokens`: by number.

    `named`: the numbers that a program of the fuzzer picks from, good ones and bad ones.
    """

    def __init__(self) -> None:
        self.datapath = open_datapath(None)
        self.datapath.tokens = TokenTable(draw_from(7))
        self.table = self.datapath.tokens
        self.arena = bytearray(_FILL)
        self.pd = ProtectionDomain("pd")
        other = ProtectionDomain("other")
        self._told = 0
        self.receive_ring = CompletionRing(4096, self._tell, _nothing)
        self.receive_ring.arm(CqNotify.SOLICITED)
        self.initiator_ring = CompletionRing(4096, _ignore, _nothing)
        self.memories: dict[str, Memory] = {}
        self.tokens: dict[int, Memory] = {}
        self._untaken: dict[tuple[int, object], list[Result]] = {}
        self._regions: dict[str, Region | FastRegion] = {}
        view = memoryview(self.arena)
        for name, place, length, base, rights, ours in _REGIONS:
            region = Region(self.table, self.pd if ours else other, name)
            region.register(base, Mdl(view[place : place + length], address=base).byte_range(length), rights)
            self._add(region, name, place, base, length, rights, ours)
        for name, place, length, base in _FAST:
            fast = FastRegion(self.table, self.pd, name)
            fast.initialize(4, True)
            fast.fast_register(base, Mdl(view[place : place + length], address=base).byte_range(length), _ALL)
            self._add(fast, name, place, base, length, _ALL, True)
        gone = Region(self.table, self.pd, "gone")
        gone.register(0xB0000, Mdl(bytearray(16), address=0xB0000).byte_range(16), _ALL)
        assert gone.remote is not None
        self.gone = gone.remote.stag
        gone.deregister()
        privileged = self.table.create(Scope.PRIVILEGED, self.pd, "privileged").stag
        self.tokens[privileged] = Memory("privileged", privileged, remote=False)
        self.named: list[int] = [self.gone, privileged, 0]

    def _add(
        self, region: Region | FastRegion, name: str, place: int, base: int, length: int, rights: Right, ours: bool
    ) -> None:
        assert region.local is not None
        assert region.remote is not None
        self._regions[name] = region
        fast = isinstance(region, FastRegion)
        local = Memory(name, region.local.stag, base, place, length, remote=False, associated=ours)
        remote = self._memory(region.remote, name, place, base, length, rights, associated=ours, takeable=fast)
        local.twin, remote.twin = remote, local
        self.tokens[local.stag] = local
        self.memories[name], self.memories[f"{name}, local"] = remote, local

    def _memory(
        self,
        entry: TokenEntry,
        name: str,
        place: int,
        base: int,
        length: int,
        rights: Right,
        *,
        associated: bool = True,
        takeable: bool = True,
    ) -> Memory:
        memory = Memory(name, entry.stag, base, place, length, bool(rights & _R), bool(rights & _W))
        memory.associated, memory.takeable = associated, takeable
        memory.remote_atomic = bool(rights & Right.REMOTE_ATOMIC)
        self.tokens[entry.stag] = memory
        return memory

    def add_windows(self, victim: object, neighbour: object) -> None:
        """Windows over `main` for both connections, one over `fast2`, one that is not bound."""
        bounds = (("window", "main", 0, 256, _ALL, victim), ("theirs", "main", 256, 256, _ALL, neighbour))
        for name, over, offset, length, rights, stream in (*bounds, ("window2", "fast2", 0, 256, _R, victim)):
            below, region = self.memories[over], self._regions[over]
            window = Window(self.table, self.pd, name)
            window.bind(region, below.base + offset, length, rights, stream)
            memory = self._memory(window.token, name, below.place + offset, below.base + offset, length, rights)
            memory.over, memory.associated = below, stream is victim
            self.memories[name] = memory
        unbound = Window(self.table, self.pd, "unbound").token
        self.tokens[unbound.stag] = Memory("unbound", unbound.stag, valid=False)
        self.named += [unbound.stag]
        self.named[:0] = [memory.stag for memory in self.memories.values() if memory.remote]
        self.named += [memory.stag for memory in self.memories.values() if not memory.remote]

    def _tell(self, status: Status) -> None:
        self._told += 1

    def told_solicited(self) -> bool:
        """Whether the receive CQ, armed for solicited completions, has told since the last look; it is armed again."""
        told, self._told = bool(self._told), 0
        if told:
            self.receive_ring.arm(CqNotify.SOLICITED)
        return told

    def receives_of(self, name: str) -> list[Result]:
        """Results of one connection's receives that nobody has taken yet; the others stay for their owner."""
        return self._results(self.receive_ring, name)

    def requests_of(self, name: str) -> list[Result]:
        """The same for its initiator queue."""
        return self._results(self.initiator_ring, name)

    def _results(self, ring: CompletionRing, name: str) -> list[Result]:
        for result in ring.take(None):
            self._untaken.setdefault((id(ring), result.qp_context), []).append(result)
        return self._untaken.pop((id(ring), name), [])

    def deregister(self, name: str) -> None:
        """Take a region's memory away, on this side and at the judge's, unless that was done before."""
        region = self._regions[name]
        assert isinstance(region, Region)
        if region.valid:
            region.deregister()
            self.memories[name].valid = self.memories[f"{name}, local"].valid = False

    def local(self, name: str) -> LocalToken:
        return LocalToken(self.memories[f"{name}, local"].stag)

    def sge(self, name: str, offset: int, length: int) -> Sge:
        """An SGE over a region, from its start."""
        return Sge(self.memories[name].base + offset, length, self.local(name))


def _ignore(status: Status) -> None:
    return


def _nothing() -> None:
    return


class End:
    """One core and its octets: chunks in, everything that comes out kept in `sent`."""

    def __init__(
        self, adapter: Adapter, name: str, config: IwarpConfig, *, active: bool, limits: tuple[int, int], shared: bool
    ) -> None:
        self.adapter = adapter
        self.config = config
        self.limits = limits
        self.now = 1000.0
        self.sent = bytearray()
        self.events: list[Event] = []
        self.shared = SharedReceives(f"srq_{name}", 4096, 0, _ignore) if shared else None
        self.pair = QueuePair(
            f"qp_{name}",
            name,
            adapter.receive_ring,
            adapter.initiator_ring,
            receive_depth=4096,
            initiator_depth=4096,
            shared=self.shared,
        )
        self.access = MemoryAccess(adapter.table, adapter.datapath.logical, adapter.pd, self.pair)
        initiator = Initiator(b"", ird=limits[0], ord=limits[1], crc=config.crc, markers=config.markers)
        self.core = Connection(name, config, initiator=initiator if active else None, limits=limits)
        self.pair.on_receive = lambda: self.core.kick(self.now)
        self.stream: Stream | None = None

    def bind(self) -> None:
        self.core.bind(self.pair, self._open)

    def _open(self, parameters: StreamParameters) -> Stream:
        self.stream = self.adapter.datapath.open_stream(self.pair, self.access, parameters)
        return self.stream

    def establish(self, *, peer_wants_markers: bool, peer_wants_crc: bool = True, indication: str = "write") -> None:
        """A start-up in which the peer does everything right; `sent` is empty behind it.

        indication: what says "ready to receive": "write", "read" or, to the passive side, "send". The initiator's is the
        first FPDU of it, and still to come.
        """
        core = self.core
        core.connected(self.now, 1460)
        flags = (0x80 if peer_wants_markers else 0) | (0x40 if peer_wants_crc else 0) | 0x10
        if core.next_timeout() is None:  # the active side's limit is its program's to start
            self.take_all()
            self.bind()
            self.give(startup_frame(REPLY_KEY, flags, 2, self._words(indication)))
            core.complete(self.now)
            self.sent.clear()
            return
        self.give(startup_frame(REQUEST_KEY, flags, 2, self._words(indication)))
        self.bind()
        core.accept(b"", *self.limits, self.now)
        self.take_all()
        self.sent.clear()

    def _words(self, indication: str) -> bytes:
        """IRD and ORD of the peer, which fit ours, and its flags A to D (RFC 6581 9)."""
        bits = {"write": 0x8000_8000, "read": 0x8000_4000, "send": 0xC000_0000}[indication]
        return (bits | self.limits[1] << 16 | self.limits[0]).to_bytes(4, "big")

    def give(self, octets: bytes | bytearray) -> None:
        """One delivery, in memory that is lent for the call only."""
        chunk = bytearray(octets)
        self.core.receive_data(memoryview(chunk), self.now)
        chunk[:] = b"\xdd" * len(chunk)
        assert 0 < self.core.read_size() <= READ_MOST, "octets to read at once"
        self.collect()

    def take_all(self) -> bytes:
        """Everything that the core wants to send now."""
        out = bytearray()
        while parts := self.core.data_to_send(self.now):
            piece = b"".join(parts)
            self.core.data_sent(len(piece), self.now)
            out += piece
        self.sent += out
        self.collect()
        return bytes(out)

    def collect(self) -> None:
        self.events += self.core.take_events()

    def post(self, request: ReceiveRequest) -> None:
        """Post a receive and tell the core, as a driver does."""
        if self.shared is not None:
            self.shared.post(request)
        else:
            self.pair.post_receive(request)
            self.core.kick(self.now)
        self.core.handle_timeout(self.now)
        self.collect()

    def run_down(self, close: Callable[[], None]) -> None:
        """Let all time limits pass, `close` if none is left, until TCP may go. Raises AssertionError: it never may."""
        for _ in range(40):
            self.take_all()
            finish = self.core.finish()
            if finish in (Finish.CLOSE, Finish.RESET):
                return
            due = self.core.next_timeout()
            if due is not None:
                self.now = max(self.now, due)
                self.core.handle_timeout(self.now)
                self.collect()
            else:
                close()
        raise AssertionError(f"no end in sight: state {self.core.state}, finish {self.core.finish()}")


class Neighbour:
    """The second connection. `check` sends it a Write and a Send through; both must work as if it were alone."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        config = IwarpConfig()
        self.end = End(adapter, "neighbour", config, active=False, limits=(4, 4), shared=False)
        self.end.establish(peer_wants_markers=False)
        self._position = 0
        self._msn = 0
        self._give(tagged(0, 1, 0))
        self.end.events.clear()

    def _give(self, ulpdu: bytes | bytearray) -> None:
        octets = fpdu(ulpdu, position=self._position, crc=True, markers=False)
        self._position += len(octets)
        self.end.give(octets)

    def check(self, arena: bytearray) -> None:
        """Raises AssertionError: the neighbour was disturbed. What is placed is put into the judge's `arena` too."""
        assert self.end.core.is_up, f"the neighbour is {self.end.core.state}"
        self._msn += 1
        mine, box = self.adapter.memories["neighbour"], self.adapter.memories["letterbox"]
        written, message = self._msn.to_bytes(8, "big") * 2, b"message " + self._msn.to_bytes(8, "big")
        self.end.post(ReceiveRequest([self.adapter.sge("letterbox", 16, 32)], f"letter{self._msn}"))
        self._give(tagged(0, mine.stag, mine.base + 32, written))
        self._give(untagged(3, 0, self._msn, 0, message))
        arena[mine.place + 32 : mine.place + 48] = written
        arena[box.place + 16 : box.place + 32] = message
        letters = self.adapter.receives_of("neighbour")
        assert [(letter.request_context, letter.status, letter.bytes_transferred) for letter in letters] == [
            (f"letter{self._msn}", Status.SUCCESS, 16)
        ], f"the neighbour has {letters}"
        assert not self.end.take_all(), "the neighbour sends something"
        assert not self.end.events, f"the neighbour is told {self.end.events}"
