"""One end of the program under judgement, beside its part of the model: objects, posts, closes.

The model's names become tokens and addresses here, and nowhere else.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from softndk import (
    Adapter,
    Connector,
    Cq,
    Disconnect,
    IwarpConfig,
    LogicalAddressMapping,
    Mdl,
    Mr,
    MrFlag,
    Mw,
    NdkError,
    NdkObject,
    Pending,
    Qp,
    Result,
    Srq,
    Status,
)
from softndk.conformance.model_end import ModelEnd
from softndk.conformance.model_memory import ATOMIC, LOCAL_WRITE, READ, WRITE, Chunk, ModelMemory, ModelMr, ModelMw
from softndk.conformance.model_queues import ModelCq, ModelReceive, ModelSrq, Posted
from softndk.conformance.model_queues import Sge as ModelSge
from softndk.flags import LocalToken, OpFlag, RemoteToken
from softndk.memory.sge import Sge
from softndk.wire.ddp import TAGGED_HEADER, UNTAGGED_HEADER
from softndk.wire.mpa import mulpdu

PATIENCE_S = 30.0 * float(os.environ.get("SOFTNDK_TIMEOUT_SCALE", "1"))
CLOSE_S = 0.3 * PATIENCE_S
CONFIG = IwarpConfig(terminate_drain_s=600.0, disconnect_timeout_s=600.0, stall_timeout_s=600.0)
SIZE = 1024
RIGHTS = {  # normal regions: name -> (address, flags, rights)
    "rw": (0x10000, MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE, frozenset({READ, WRITE, LOCAL_WRITE})),
    "ro": (0x20000, MrFlag.ALLOW_REMOTE_READ, frozenset({READ})),
    "lo": (0x30000, MrFlag.ALLOW_LOCAL_WRITE, frozenset({LOCAL_WRITE})),
    "at": (0x50000, MrFlag.ALLOW_REMOTE_ATOMIC, frozenset({ATOMIC, LOCAL_WRITE})),
    "alien": (
        0x40000,
        MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE | MrFlag.ALLOW_REMOTE_ATOMIC,
        frozenset({READ, WRITE, ATOMIC, LOCAL_WRITE}),
    ),
}
FAST = {"fr0": (2, True), "fr1": (1, False)}  # pages, remote access
FAST_BASE = {"fr0": 0x500000, "fr1": 0x600000}
LAMS = {"lam0": (0x700000000000, 0x100000, 8192), "lam1": (0x710000000000, 0x200064, 5000)}
"""Mappings: name -> (the model's logical address, address of the buffer, length)."""
BOGUS = 0x55  # index 0 is never given out
OF_A_CONNECTION = ("connector", "qp", "receive cq", "initiator cq")
OBJECTS = (*OF_A_CONNECTION, "srq", "w0", "w1", *RIGHTS, *FAST, "pd", "other pd")
"""Everything of an end that can be closed."""
QUEUE_DEPTH, MAX_SGE, INLINE_SIZE, SRQ_DEPTH, SRQ_THRESHOLD = 6, 3, 64, 8, 2


@dataclass(frozen=True)
class Shape:
    """How a connection is made. `mss`: TCP's, or what the segments are made as if it were. `srq`: whose QP takes its
    receives from an SRQ. `new_windows`: else those that are bound stay with the QP of the connection before.
    `calm`: what is done should work, so that the connection lives longer.
    """

    one_cq: bool
    cq_depth: int
    read_limits: tuple[int, int]
    srq: frozenset[str]
    mss: int
    new_windows: bool
    calm: bool


@dataclass
class Line:
    """What belongs to one connection of one end."""

    qp: Qp
    receive_cq: Cq
    initiator_cq: Cq
    connector: Connector
    fired: dict[Cq, list[Status]]
    events: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    disconnect: Pending[None] | None = None


@dataclass
class Close:
    """A close that has been asked for. `told`: how often its callback has run."""

    item: NdkObject
    pending: Pending[None]
    told: list[Pending[None]]


class End:
    """One end: memory objects that stay, and the `line` of the present connection."""

    def __init__(self, name: str, adapter: Adapter) -> None:
        self.name = name
        self.adapter = adapter
        self.pd, other = adapter.create_pd(), adapter.create_pd()
        self.pds = (self.pd, other)
        self.model = ModelMemory()
        self.buffers: dict[str, bytearray] = {}
        self.tokens = {"X": BOGUS, "L:priv": int(self.pd.privileged_token)}
        self.mrs: dict[str, Mr] = {}
        self.mws: dict[str, Mw] = {}
        self.lams: dict[str, LogicalAddressMapping] = {}
        self.srq_fired = 0
        self.closes: dict[str, Close] = {}
        for name_ in RIGHTS:
            self._buffer(name_, SIZE)
            self._new_region(name_, 0)
        for name_ in FAST:
            self._new_fast_region(name_, 0)
        for name_, (start, address, size) in LAMS.items():
            lam = adapter.build_lam(Mdl(self._buffer(name_, size), address=address)).result(PATIENCE_S)
            self.lams[name_] = lam
            self.model.lams[name_] = (start, lam.fbo, size)
        for name_ in ("w0", "w1"):
            self.model.mws[name_] = ModelMw(name_)
            self._new_window(name_)
        self.srq = self._new_srq()
        self.model_srq = ModelSrq(SRQ_DEPTH, SRQ_THRESHOLD)
        self.line: Line = None  # type: ignore[assignment]

    @property
    def kept(self) -> tuple[ModelMemory, ModelSrq]:
        """What of the model outlives a connection."""
        return self.model, self.model_srq

    @kept.setter
    def kept(self, models: tuple[ModelMemory, ModelSrq]) -> None:
        self.model, self.model_srq = models

    def _buffer(self, name: str, size: int) -> bytearray:
        seed = sum(name.encode()) + (100 if self.name == "b" else 0)
        self.buffers[name] = bytearray((seed + index * 7 + index // 256) % 256 for index in range(size))
        self.model.buffers[name] = bytearray(self.buffers[name])
        return self.buffers[name]

    def _learn_tokens(self, name: str) -> None:
        life = self.model.mrs[name].life
        self.tokens[f"L:{name}:{life}"] = int(self.mrs[name].local_token)
        self.tokens[f"R:{name}:{life}"] = int(self.mrs[name].remote_token)

    def _new_window(self, name: str) -> None:
        self.mws[name] = self.pd.create_mw()
        self.tokens[f"R:{name}:{self.model.mws[name].life}"] = self.mws[name]._window.token.stag

    def _new_region(self, name: str, life: int) -> None:
        address, flags, rights = RIGHTS[name]
        pd = self.pds[name == "alien"]
        self.mrs[name] = pd.register_mr(Mdl(self.buffers[name], address=address), flags)
        self.model.mrs[name] = ModelMr(
            name,
            fast=False,
            own_pd=pd is self.pd,
            life=life,
            valid=True,
            base=address,
            rights=rights,
            chunks=[Chunk(name, 0, SIZE)],
        )
        self._learn_tokens(name)

    def _new_fast_region(self, name: str, life: int) -> None:
        pages, remote_access = FAST[name]
        self.mrs[name] = self.pd.create_mr(fast_register=True)
        self.mrs[name].initialize_fast_register(pages, remote_access).result(PATIENCE_S)
        self.model.mrs[name] = ModelMr(name, fast=True, page_limit=pages, remote_access=remote_access, life=life)
        self._learn_tokens(name)

    def _new_srq(self) -> Srq:
        return self.pd.create_srq(
            SRQ_DEPTH, max_receive_sge=MAX_SGE, notify_threshold=SRQ_THRESHOLD, on_notify=self._srq_notified
        )

    def _srq_notified(self, srq: Srq, status: Status) -> None:
        assert status is Status.SUCCESS
        self.srq_fired += 1

    # ---- one connection

    def prepare(self, number: int, shape: Shape) -> ModelEnd:
        """New CQs and QP."""
        fired: dict[Cq, list[Status]] = {}
        cqs = [self.adapter.create_cq(shape.cq_depth, lambda cq, status: fired[cq].append(status)) for _ in range(2)]
        models = [ModelCq(shape.cq_depth, number) for _ in cqs]
        if shape.one_cq:
            cqs[1].close()
            cqs[1], models[1] = cqs[0], models[0]
        fired.update((cq, []) for cq in cqs)
        on_srq = self.name in shape.srq
        if on_srq:
            qp = self.pd.create_qp_with_srq(
                cqs[0],
                cqs[1],
                self.srq,
                initiator_queue_depth=QUEUE_DEPTH,
                max_initiator_sge=MAX_SGE,
                inline_data_size=INLINE_SIZE,
                context=number,
            )
        else:
            qp = self.pd.create_qp(
                cqs[0],
                cqs[1],
                receive_queue_depth=QUEUE_DEPTH,
                initiator_queue_depth=QUEUE_DEPTH,
                max_receive_sge=MAX_SGE,
                max_initiator_sge=MAX_SGE,
                inline_data_size=INLINE_SIZE,
                context=number,
            )
        for name, mw in self.model.mws.items() if shape.new_windows else ():
            if not mw.closing.asked:
                self.mws[name].close()
                self.model.mws[name] = ModelMw(name, life=mw.life + 1)
                self._new_window(name)
        self.line = Line(qp, cqs[0], cqs[1], None, fired)  # type: ignore[arg-type]
        model = ModelEnd(
            self.name,
            self.model,
            number,
            models[0],
            models[1],
            self.model_srq,
            on_srq,
            depth=QUEUE_DEPTH,
            max_sge=MAX_SGE,
            max_read_sge=self.adapter.query_info().max_read_request_sge,
            inline_size=INLINE_SIZE,
            read_limit=0,
            rooms=(mulpdu(shape.mss) - UNTAGGED_HEADER, mulpdu(shape.mss) - TAGGED_HEADER),
        )
        model.settle_closes()  # windows have gone
        return model

    def told(self, connector: Connector, how: Disconnect) -> None:
        self.line.events.append("graceful" if how.graceful else "abort")
        self.line.reasons.append(str(how.error))

    def leave(self) -> None:
        """Close what belongs to the connection. Nothing else needs it."""
        line = self.line
        items: tuple[NdkObject, ...] = (line.connector, line.qp, line.receive_cq, line.initiator_cq)
        for item in items:
            item.close()
        assert self.adapter._runtime.dispatcher.drain(PATIENCE_S)
        for item in items:
            assert item.closed, f"{self.name}: {item!r} is not closed"
        for name in OF_A_CONNECTION:
            self.closes.pop(name, None)

    # ---- closing one by one

    def close_one(self, name: str) -> None:
        """Ask for the close of the object with the model's `name`."""
        line, told = self.line, list[Pending[None]]()
        objects: dict[str, NdkObject] = {
            "connector": line.connector,
            "qp": line.qp,
            "receive cq": line.receive_cq,
            "initiator cq": line.initiator_cq,
            "srq": self.srq,
            "pd": self.pds[0],
            "other pd": self.pds[1],
            **self.mrs,
            **self.mws,
        }
        item = objects[name]
        self.closes[name] = Close(item, item.close(on_done=told.append), told)

    def compare_closes(self, model: ModelEnd) -> None:
        """Each close that was asked for is done, and was told, just when the model's is (R-CLOSE-2, -4, -5)."""
        closings = model.closings()
        for name, close in self.closes.items():
            done = closings[name].done
            said = close.pending.done(), close.item.closed, len(close.told)
            assert said == (done, done, int(done)), f"{self.name}: close of {name}: {said}, done: {done} expected"

    def make_anew(self) -> None:
        """Other objects take the place of those that are closed, but for those of the connection."""
        if self.model.pd.asked or self.model.other_pd.asked:
            return
        for name, mw in tuple(self.model.mws.items()):
            if mw.closing.done:
                self.model.mws[name] = ModelMw(name, life=mw.life + 1)
                self._new_window(name)
                del self.closes[name]
        for name, mr in tuple(self.model.mrs.items()):
            if mr.closing.done:
                (self._new_fast_region if mr.fast else self._new_region)(name, mr.life + 1)
                del self.closes[name]
        if self.model_srq.closing.done:
            self.srq = self._new_srq()
            fresh = ModelSrq(SRQ_DEPTH, SRQ_THRESHOLD)
            self.model_srq.receives, self.model_srq.armed, self.model_srq.threshold = (
                fresh.receives,
                True,
                fresh.threshold,
            )
            self.model_srq.closing.renew()
            del self.closes["srq"]

    def close(self) -> None:
        self.leave()
        for item in (self.srq, *self.mws.values(), *self.mrs.values()):
            item.close()
        for pd in self.pds:
            pd.close().result(CLOSE_S)
        self.release()

    def release(self) -> None:
        """Give back what is no object."""
        for lam in self.lams.values():
            lam.release()

    # ---- calls, with the model's names

    def register_again(self, name: str) -> Status | None:
        """Deregister and register (R-REGMR-6). The status of a refusal."""
        mr = self.mrs[name]
        address, flags, _ = RIGHTS[name]
        try:
            mr.deregister().result(PATIENCE_S)
        except NdkError as error:
            return error.status
        mr.register(Mdl(self.buffers[name], address=address), flags).result(PATIENCE_S)
        self.model.mrs[name].life += 1
        self._learn_tokens(name)
        return None

    def receive(self, receive: ModelReceive, *, shared: bool) -> Status | None:
        try:
            (self.srq if shared else self.line.qp).receive(self._sgl(receive.sges), context=receive.context)
        except NdkError as error:
            return error.status
        return None

    def post(self, post: Posted, peer: "End") -> Status | None:
        try:
            self._post(post, peer)
        except NdkError as error:
            return error.status
        return None

    def _post(self, post: Posted, peer: "End") -> None:
        qp, rest = self.line.qp, {"flags": post.flags, "context": post.context}
        data: Any = self._sgl(post.sges)
        if post.inline is not None and post.kind != "send_immediate":
            data = [Sge.inline(post.inline)] if post.flags & OpFlag.INLINE else post.inline
        token = RemoteToken(peer.tokens.get(post.token, 0))
        if post.kind == "send" and post.token:
            qp.send_and_invalidate(data, token, **rest)
        elif post.kind == "send":
            qp.send(data, **rest)
        elif post.kind == "write":
            qp.write(data, post.address, token, **rest)
        elif post.kind == "read":
            qp.read(data, post.address, token, **rest)
        elif post.kind == "send_immediate":
            assert post.inline is not None
            number = int.from_bytes(post.inline, "big")
            qp.send_immediate(number if post.context % 2 and post.size == 8 else post.inline, **rest)
        elif post.kind == "fetch_add":
            add, mask = post.operands
            qp.fetch_add(data, post.address, token, add, mask=mask, **rest)
        elif post.kind == "compare_swap":
            compare, swap, compare_mask, swap_mask = post.operands
            masks = {"compare_mask": compare_mask, "swap_mask": swap_mask}
            qp.compare_swap(data, post.address, token, compare, swap, **masks, **rest)
        elif post.kind == "bind":
            qp.bind(self.mrs[post.target], self.mws[post.mw], post.address, post.length, **rest)
        elif post.kind == "fast_register":
            pages = [self._logical(page) for page in post.pages]
            where = {"fbo": post.fbo, "length": post.length, "base_address": post.address}
            qp.fast_register(self.mrs[post.target], pages, **where, **rest)
        else:
            qp.invalidate(self.mws[post.target] if post.target in self.mws else self.mrs[post.target], **rest)

    def _sgl(self, sges: Sequence[ModelSge]) -> list[Sge]:
        return [
            Sge(
                self._logical(sge.address) if sge.token == "L:priv" else sge.address,
                sge.length,
                LocalToken(self.tokens[sge.token]),
            )
            for sge in sges
        ]

    def _logical(self, address: int) -> int:
        for name, (start, _, _) in LAMS.items():
            if 0 <= address - start < 0x10000:
                return self.lams[name].pages[0] + address - start
        return address

    def results(self, cq: Cq) -> list[Result]:
        """What lies in the CQ, without taking it."""
        with cq._lock:
            return list(cq._ring._entries)

    def drain(self) -> None:
        """Until every callback that is due has returned, and an overrun has been acted upon."""
        line, deadline = self.line, time.monotonic() + PATIENCE_S
        while not line.qp._pair.flushing and any(cq.status is not Status.SUCCESS for cq in line.fired):
            assert time.monotonic() < deadline, "an overrun has no effect on its QP"
            os.sched_yield()
        assert self.adapter._runtime.dispatcher.drain(PATIENCE_S)
