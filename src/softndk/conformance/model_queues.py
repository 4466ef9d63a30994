"""Values of the model: requests, receives, completion queues with their arming rules.

Must not know memory or connections, and shares with the program it judges the numbers of flags and statuses only.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, Protocol

from softndk.conformance.model_closing import Closing
from softndk.flags import CqNotify, OperationType, OpFlag
from softndk.status import Status

__all__ = ["ATOMICS", "FETCHES", "Kind", "ModelCq", "ModelReceive", "ModelSrq", "Posted", "Record", "Sge", "one_of"]

Kind = Literal[
    "send",
    "write",
    "read",
    "bind",
    "fast_register",
    "invalidate",
    "send_immediate",
    "fetch_add",
    "compare_swap",
]
ATOMICS: tuple[Kind, ...] = ("fetch_add", "compare_swap")
FETCHES: tuple[Kind, ...] = ("read", *ATOMICS)
"""What the read limit counts and a fence waits for."""


def one_of(*statuses: Status) -> frozenset[Status]:
    """The statuses that the rules allow."""
    return frozenset(statuses)


@dataclass(frozen=True)
class Sge:
    """A named token, an address and a length."""

    token: str
    address: int
    length: int


@dataclass(eq=False, repr=False)
class Posted:
    """An initiator request. `token`: the remote token of a read, write or atomic, or the one that a send takes away.
    `operands`: an atomic's, in the order of its verb; `original`: what it has fetched. `inline`: Immediate Data too.
    """

    kind: Kind
    context: int
    flags: int
    sges: tuple[Sge, ...] = ()
    inline: bytes | None = None
    token: str = ""
    address: int = 0
    target: str = ""
    mw: str = ""
    length: int = 0
    pages: tuple[int, ...] = ()
    fbo: int = 0
    operands: tuple[int, ...] = ()
    original: int | None = None
    status: frozenset[Status] | None = None

    def __repr__(self) -> str:
        """What has been set, for people: `OpFlag` names flags."""
        shown = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if self._is_set(field)]
        return f"{self.kind} {self.context} ({', '.join([f'flags={OpFlag(self.flags)!r}', *shown])})"

    def _is_set(self, field: "Field[Any]") -> bool:
        return field.name not in ("kind", "context", "flags") and getattr(self, field.name) != field.default

    @property
    def size(self) -> int:
        return sum(sge.length for sge in self.sges) if self.inline is None else len(self.inline)

    @property
    def type(self) -> OperationType:
        return OperationType[self.kind.upper()]  # R-SENDINV-4: of a send-and-invalidate SEND too

    def has(self, flag: int) -> bool:
        return self.flags & flag == flag

    def failed(self, status: frozenset[Status]) -> "Posted":
        """The first final status counts (R-FLUSH-7)."""
        if self.status is None:
            self.status = status
        return self


@dataclass(eq=False)
class ModelReceive:
    context: int
    sges: tuple[Sge, ...]
    status: frozenset[Status] | None = None

    @property
    def size(self) -> int:
        return sum(sge.length for sge in self.sges)


@dataclass
class ModelSrq:
    """R-SRQ-1, A-12: armed at creation; tells once when the count falls from the threshold to below."""

    depth: int
    threshold: int
    receives: deque[ModelReceive] = field(default_factory=deque)
    armed: bool = True
    fired: int = 0
    closing: Closing = field(default_factory=Closing)

    def take(self) -> ModelReceive:
        receive = self.receives.popleft()
        if self.armed and len(self.receives) == self.threshold - 1:
            self.armed = False
            self.fired += not self.closing.asked
        return receive

    def modify(self, threshold: int) -> None:
        """R-MODSRQ-3."""
        self.threshold, self.armed = threshold, True
        if len(self.receives) < threshold:
            self.armed = False
            self.fired += 1


class Record(Protocol):
    """A result, as the program under judgement shows it."""

    @property
    def type(self) -> OperationType: ...
    @property
    def status(self) -> Status: ...
    @property
    def bytes_transferred(self) -> int: ...
    @property
    def request_context(self) -> object: ...
    @property
    def qp_context(self) -> object: ...
    @property
    def invalidated_token(self) -> int | None: ...
    @property
    def original_value(self) -> int | None: ...
    @property
    def immediate_data(self) -> bytes | None: ...


@dataclass(frozen=True)
class Expected:
    type: OperationType
    status: frozenset[Status]
    context: int
    size: int
    token: str
    solicited: bool
    original: int | None
    immediate: bytes | None


@dataclass
class Entry:
    """A completion in the CQ. `new`: placed since the notification was last made."""

    context: object
    matches: frozenset[CqNotify]
    new: bool = True


_UPGRADE = {  # R-ARM-7: first, second -> result
    (CqNotify.ANY, CqNotify.ANY): CqNotify.ANY,
    (CqNotify.ANY, CqNotify.ERRORS): CqNotify.ANY,
    (CqNotify.ANY, CqNotify.SOLICITED): CqNotify.ANY,
    (CqNotify.ERRORS, CqNotify.ANY): CqNotify.ANY,
    (CqNotify.ERRORS, CqNotify.ERRORS): CqNotify.ERRORS,
    (CqNotify.ERRORS, CqNotify.SOLICITED): CqNotify.SOLICITED,
    (CqNotify.SOLICITED, CqNotify.ANY): CqNotify.ANY,
    (CqNotify.SOLICITED, CqNotify.ERRORS): CqNotify.SOLICITED,
    (CqNotify.SOLICITED, CqNotify.SOLICITED): CqNotify.SOLICITED,
}


class ModelCq:
    """What must appear in a CQ: each queue's completions in order, the queues mixed in any way (R-COMP-4)."""

    def __init__(self, depth: int, qp: int) -> None:
        self.depth = depth
        self.qp = qp
        self.failed = False
        self.overrun = False
        self.entries: list[Entry] = []
        self.pending: dict[str, deque[Expected]] = {"receive": deque(), "initiator": deque()}
        self.armed: CqNotify | None = None
        self.fired: list[Status] = []
        self.closing = Closing()
        self._told = False
        self._dead = False

    def push(
        self,
        queue: str,
        kind: OperationType,
        status: frozenset[Status],
        context: int,
        *,
        size: int = 0,
        token: str = "",
        solicited: bool = False,
        original: int | None = None,
        immediate: bytes | None = None,
    ) -> None:
        """R-CQERR-1: one too many puts the CQ into error; nothing is placed after that."""
        if self._dead:
            return
        if len(self.entries) + sum(map(len, self.pending.values())) >= self.depth:
            self.failed = self.overrun = True
        self.pending[queue].append(Expected(kind, status, context, size, token, solicited, original, immediate))

    def arm(self, kind: CqNotify) -> None:
        self.armed = kind if self.armed is None else _UPGRADE[self.armed, kind]
        self._fire_if_due()

    def taken(self, count: int) -> None:
        """The oldest entries have been fetched (R-GETCQ-1)."""
        del self.entries[:count]

    def compare(self, records: Sequence[Record], tokens: dict[str, int]) -> None:
        """Check everything that lies in the real CQ now; what is new becomes known here. Raises AssertionError."""
        known = len(self.entries)
        assert [r.request_context for r in records[:known]] == [e.context for e in self.entries], (
            "known entries changed"
        )
        for record in records[known:]:
            queue = "receive" if record.type & OperationType.RECEIVE else "initiator"
            assert self.pending[queue], f"a result that nothing explains: {record}"
            self._check(record, self.pending[queue].popleft(), tokens)
        if self.failed and not self._dead:
            assert len(records) == self.depth, f"{len(records)} results at an overrun of depth {self.depth}"
            self._dead = True
            for left in self.pending.values():
                left.clear()
        missing = [item for queue in self.pending.values() for item in queue]
        assert not missing, f"results that are missing: {missing}"
        self._fire_if_due()

    def _check(self, record: Record, expected: Expected, tokens: dict[str, int]) -> None:
        assert record.request_context == expected.context, f"{record} comes in place of {expected}"
        assert record.status in expected.status, f"{record} instead of {expected}"
        assert record.type is expected.type, f"{record} instead of {expected}"
        assert record.qp_context == self.qp, f"{record} of another QP"
        assert record.bytes_transferred == expected.size, f"{record} instead of {expected}"
        if expected.type is OperationType.RECEIVE_AND_INVALIDATE:
            assert record.invalidated_token == tokens[expected.token], f"{record} instead of {expected}"
        else:
            assert record.invalidated_token is None, f"{record} instead of {expected}"
        assert record.immediate_data == expected.immediate, f"{record} instead of {expected}"
        assert record.original_value == expected.original, f"{record} instead of {expected}"
        matches = {CqNotify.ANY}  # R-ARM-8
        if expected.solicited or record.status is not Status.SUCCESS:
            matches.add(CqNotify.SOLICITED)
        self.entries.append(Entry(expected.context, frozenset(matches)))
        self._fire_if_due()

    def _fire_if_due(self) -> None:
        """R-ARM-1 to -3, -9: a new matching entry satisfies an arm. R-CQERR-3: an error any arm, once."""
        if self.armed is None or self.closing.asked:
            return
        if self._dead and not self._told:
            self._told = True
            self.fired.append(Status.BUFFER_OVERFLOW)
        elif any(entry.new and self.armed in entry.matches for entry in self.entries):
            self.fired.append(Status.SUCCESS)
        else:
            return
        self.armed = None
        for entry in self.entries:
            entry.new = False
