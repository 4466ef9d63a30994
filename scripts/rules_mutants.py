"""Mutations of the code, each against one rule: shows that the tests of that rule would notice.

Each mutation is applied to a copy of the project; the tests that name its rule run there, and one of them has to fail.
Prints a table; fails if a mutation goes unnoticed or no longer fits the code.
Run: ``make mutants``, or ``python -m scripts.rules_mutants [RULE ...]`` from the project's root.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from scripts.rule_proofs import ROOT, proofs

__all__ = ["MUTANTS", "Mutant"]

PATIENCE: Final = "0.3"
"""Cases wait this part of their usual time for what a mutant may prevent."""
WORKERS: Final = 2
_FAILED: Final = re.compile(r"^FAILED [^:]+::(.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break a rule: in `file`, below src/softndk, `old` becomes `new`. `what`: what is wrong then."""

    rule: str
    file: str
    old: str
    new: str
    what: str

    def applied_to(self, text: str) -> str:
        """The mutated text. Raises ValueError: `old` is not there, or not only once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.rule}: {self.file} has {text.count(self.old)} places like {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests of the rule said. `status`: of pytest; 1 is what is wanted. `seconds`: how long they took."""

    mutant: Mutant
    tests: int
    status: int
    told: str
    seconds: float

    @property
    def first(self) -> str:
        """The first test that failed, or the last line of what pytest printed."""
        failed = _FAILED.search(self.told)
        return failed[1] if failed else self.told.strip().rpartition("\n")[2]

    @property
    def caught(self) -> bool:
        return self.status == 1


MUTANTS: Final = (
    # ---- completion and arming
    Mutant(
        "R-ARM-1",
        "queues/completion.py",
        "        self.armed = None\n        self._seen",
        "        self._seen",
        "the arm is not cleared by its callback",
    ),
    Mutant(
        "R-ARM-3",
        "queues/completion.py",
        "elif self._newest[kind] <= max(self._seen, self._taken):",
        "elif self._newest[kind] <= self._taken:",
        "results from before the last callback count as new",
    ),
    Mutant(
        "R-ARM-7",
        "queues/completion.py",
        "return max(first, second, key=_STRENGTH.__getitem__)",
        "return second",
        "the second arm replaces the first",
    ),
    Mutant(
        "R-ARM-8",
        "queues/completion.py",
        "if solicited or result.status is not Status.SUCCESS:",
        "if solicited:",
        "errors do not satisfy an arm for solicited results",
    ),
    Mutant(
        "R-ARM-9",
        "queues/completion.py",
        "elif self._newest[kind] <= max(self._seen, self._taken):",
        "elif self._number <= max(self._seen, self._taken):",
        "the kind of the arm is not looked at",
    ),
    Mutant(
        "R-CQ-1",
        "queues/completion.py",
        "if len(self._entries) >= self.depth:",
        "if len(self._entries) > self.depth:",
        "the CQ holds one result more than its depth",
    ),
    Mutant(
        "R-CQERR-3",
        "queues/completion.py",
        "            self._error_told = True\n",
        "",
        "the failure is told at every arm",
    ),
    Mutant(
        "R-GETCQ-1",
        "queues/completion.py",
        "return [self._entries.popleft() for _ in range(count)]",
        "return [self._entries.pop() for _ in range(count)]",
        "the newest results are taken first",
    ),
    Mutant(
        "R-RESIZE-2",
        "ndk/cq.py",
        "if len(self._ring) > depth:",
        "if False:",
        "a CQ shrinks below what it holds",
    ),
    Mutant(
        "R-MOD-5",
        "queues/completion.py",
        "if gathered >= self._count or",
        "if gathered > self._count or",
        "one result more than the count has to gather",
    ),
    Mutant(
        "R-MOD-2",
        "queues/completion.py",
        "        if self._gathering:\n            self._gathering = False\n            self._notify_if_due()\n",
        "",
        "new settings do not hold for a notification that waits",
    ),
    Mutant(
        "R-ARM-4",
        "queues/completion.py",
        "        self.armed = kind if self.armed is None else stronger_arm(self.armed, kind)\n",
        "        self.armed = kind if self.armed is None else stronger_arm(self.armed, kind)\n"
        "        self._seen = self._number\n",
        "what came before the arm is missed",
    ),
    Mutant(
        "R-ARM-5",
        "ndk/cq.py",
        "        if self._on_notify is not None:\n            self._call_back",
        "        if self._on_notify is not None and not self._busy:\n            self._call_back",
        "a notification that falls due while one runs is lost",
    ),
    Mutant(
        "R-ARM-6",
        "ndk/cq.py",
        "            self._call_back(self._on_notify, self, status)\n",
        "            self._call_back(self._on_notify, self, status)\n"
        "            ring = self._ring\n"
        '            self._runtime.dispatcher.submit(lambda: setattr(ring, "_seen", ring._number))\n',
        "what comes while the callback runs counts as seen by it",
    ),
    Mutant(
        "R-ARM-12",
        "ndk/cq.py",
        "            self._call_back(self._on_notify, self, status)",
        "            self._on_notify(self, status)",
        "the callback runs inside the call that arms or posts",
    ),
    Mutant(
        "R-CQERR-1",
        "queues/completion.py",
        "        if self.status is not Status.SUCCESS:\n            return\n        if len",
        "        if len",
        "results come after an overrun, when there is room again",
    ),
    Mutant(
        "R-CQERR-4",
        "queues/completion.py",
        "        self.status = status\n        self._notify",
        "        self.status = status\n        self._entries.clear()\n        self._notify",
        "a CQ that fails loses what it held",
    ),
    Mutant(
        "R-RES-1",
        "queues/pair.py",
        "                bytes_transferred=length,\n                qp_context=self.context,",
        "                bytes_transferred=length,\n"
        "                qp_context=self.context if self.shared is None else None,",
        "results of shared receives have no QP context",
    ),
    Mutant(
        "E-5",
        "queues/completion.py",
        "self._interval == 0 or self._count in (0, 1):\n"
        "            return False\n"
        "        gathered = self._number - max(self._seen, self._taken)\n"
        "        if gathered >= self._count",
        "self._interval == 0 or self._count == 0:\n"
        "            return False\n"
        "        gathered = self._number - max(self._seen, self._taken)\n"
        "        if gathered > 1 and gathered >= self._count",
        "a count of 1 waits for the interval",
    ),
    # ---- queues
    Mutant(
        "R-COMP-4",
        "queues/pair.py",
        "        while self.active and self.active[0].status is not None:\n            head = self.active.popleft()\n",
        "        while request in self.active:\n            self.active.remove(request)\n            head = request\n",
        "requests complete as they finish",
    ),
    Mutant(
        "R-COMP-2",
        "queues/pair.py",
        "        if request.status is not Status.SUCCESS:\n            self._push_failure(self.initiator_ring, request)",
        "        if request.status is not Status.SUCCESS and not request.silent:\n"
        "            self._push_failure(self.initiator_ring, request)",
        "a silent request that fails is not told",
    ),
    Mutant(
        "R-COMP-3",
        "queues/pair.py",
        "            self._push_failure(self.receive_ring, request)",
        "            self._push_failure(self.initiator_ring, request)",
        "flushed receives go to the initiator CQ",
    ),
    Mutant(
        "R-WR-11",
        "queues/pair.py",
        "            if head.fenced:\n",
        "            if False:\n",
        "fences are ignored",
    ),
    Mutant(
        "R-READ-4",
        "queues/pair.py",
        "if self.reads_outstanding >= self.outbound_read_limit:",
        "if self.reads_outstanding > self.outbound_read_limit:",
        "one read more than the limit is under way",
    ),
    Mutant(
        "R-WR-8",
        "queues/pair.py",
        "if len(self.receives) >= self.receive_depth:",
        "if len(self.receives) > self.receive_depth:",
        "the receive queue takes one more than its depth",
    ),
    Mutant(
        "R-FLUSH-1",
        "queues/pair.py",
        "        self._flush_initiator()\n        self._flush_receives()\n",
        "        self._flush_initiator()\n",
        "a flush leaves the receives",
    ),
    Mutant(
        "R-SENDINV-5",
        "queues/pair.py",
        "kind, token = OperationType.RECEIVE_AND_INVALIDATE, RemoteToken(invalidated)",
        "kind, token = OperationType.RECEIVE, RemoteToken(invalidated)",
        "the receiver's result has the plain type",
    ),
    Mutant(
        "R-SRQ-1",
        "queues/shared.py",
        "len(self._receives) == self.threshold - 1",
        "len(self._receives) == self.threshold",
        "the notification comes when the threshold is reached",
    ),
    Mutant(
        "R-SRQ-3",
        "iwarp/inbound.py",
        "if hold or self.pair.shared is not None:",
        "if hold:",
        "an empty SRQ ends the connection",
    ),
    Mutant(
        "R-FLUSH-7",
        "queues/pair.py",
        "        self.active.extend(self.waiting)\n",
        "        self.active.extendleft(self.waiting)\n",
        "a flush does not keep the order",
    ),
    Mutant(
        "R-SRQ-2",
        "queues/shared.py",
        "        self.armed = threshold > 0\n",
        "        self.armed = False\n",
        "a new SRQ is not armed",
    ),
    Mutant(
        "R-MODSRQ-2",
        "queues/shared.py",
        "        if threshold:\n            self.threshold = threshold\n",
        "        if not threshold:\n"
        "            self.armed = self.threshold > 0\n"
        "        if threshold:\n"
        "            self.threshold = threshold\n",
        "threshold 0 arms again",
    ),
    Mutant(
        "R-WR-1",
        "queues/pair.py",
        "        elif not request.silent:\n            self.initiator_ring.push(",
        "        elif not request.silent:\n"
        "            (self.receive_ring if isinstance(request, LocalRequest) else self.initiator_ring).push(",
        "binds, fast registers and invalidates complete as receives do",
    ),
    Mutant(
        "R-WR-1",
        "queues/pair.py",
        "        if self.sends_in_use >= self.initiator_depth:\n",
        "        if self.sends_in_use >= self.initiator_depth and not isinstance(request, LocalRequest):\n",
        "local requests do not count for the queue",
    ),
    Mutant(
        "R-READ-2",
        "queues/work.py",
        "        super().__init__(kind, flags, context)\n"
        "        self.sgl = tuple(sgl)\n"
        "        self.length = sum(sge.length for sge in self.sgl)\n",
        "        super().__init__(kind, flags, context)\n"
        "        self.sgl = tuple(sgl)\n"
        "        self.length = self.sgl[0].length if self.sgl else 0\n",
        "a read brings what its first SGE has room for",
    ),
    # ---- requests
    Mutant(
        "R-DEFER-3",
        "ndk/qp.py",
        "                    self._pair.release_deferred()\n",
        "                    pass\n",
        "a post that fails leaves what was deferred",
    ),
    Mutant(
        "R-WR-3",
        "ndk/qp.py",
        "        if connector is not None and connector._takes_posts:\n",
        "        if True:\n",
        "posts without a connection are taken",
    ),
    Mutant(
        "R-WR-6",
        "ndk/transfer_requests.py",
        'sgl, qp._context.info.max_read_request_sge, "max_read_request_sge")',
        'sgl, qp._max_initiator_sge, "max_initiator_sge")',
        "reads go by the limit of the QP",
    ),
    Mutant(
        "R-WR-10",
        "ndk/transfer_requests.py",
        '    return b"".join(views)',
        "    return memoryview(views[0]) if views else b''",
        "inline data is not copied",
    ),
    Mutant(
        "R-FREG-4",
        "ndk/memory_requests.py",
        "if (base_address - fbo) % PAGE_SIZE or base_address < fbo:",
        "if base_address < fbo:",
        "any base address is taken",
    ),
    Mutant(
        "R-FRINIT-3",
        "ndk/memory_requests.py",
        "if rights & REMOTE_RIGHTS and not region.remote_access:",
        "if False:",
        "remote rights need nothing at the initialisation",
    ),
    Mutant(
        "A-9",
        "ndk/memory_requests.py",
        "        subject.check_invalidate()\n",
        "        pass\n",
        "invalidating what is invalid ends the connection",
    ),
    Mutant(
        "R-CONC-1",
        "ndk/qp.py",
        '            watch_overlaps(self, "R-CONC-1", *_FLAGS)\n'
        '            watch_overlaps(self, "R-CONC-1", "receive")\n',
        '            watch_overlaps(self, "R-CONC-1", *_FLAGS, "receive")\n',
        "strict mode takes the two queues of a QP for one",
    ),
    Mutant(
        "R-CONC-6",
        "ndk/qp.py",
        "                self._check_usable(operation)\n                if type(flags)",
        "                self._check_usable(operation)\n"
        "                if self._runtime.dispatcher.in_callback():\n"
        '                    raise InvalidState(f"{self._label} {operation}: in a callback")\n'
        "                if type(flags)",
        "posts are refused in a callback",
    ),
    Mutant(
        "R-MW-2",
        "ndk/mw.py",
        "        return RemoteToken(self._window.token.stag)\n",
        "        if not self._window.valid:\n"
        '            raise RuntimeError("not bound")\n'
        "        return RemoteToken(self._window.token.stag)\n",
        "a window has a token only when the bind has been carried out",
    ),
    Mutant(
        "R-BIND-1",
        "memory/regions.py",
        "rights & (Right.REMOTE_WRITE | Right.REMOTE_ATOMIC) and not",
        "rights & Right.REMOTE_ATOMIC and not",
        "remote write needs nothing on the region",
    ),
    # ---- memory
    Mutant(
        "R-MEM-1",
        "memory/access.py",
        "        if entry.pd is not self._pd:\n            self._table.refused += 1",
        "        if False:\n            self._table.refused += 1",
        "tokens of other PDs are honoured",
    ),
    Mutant(
        "R-MEM-2",
        "memory/access.py",
        "        if not entry.rights & right:",
        "        if False:",
        "rights of a peer are not looked at",
    ),
    Mutant(
        "R-MEM-3",
        "memory/access.py",
        "        if offset < 0 or offset + length > entry.length:\n            raise AccessDenied(\n"
        '                Denial.OUT_OF_BOUNDS,\n                f"[{address:#x}',
        "        if offset < 0 or offset > entry.length:\n            raise AccessDenied(\n"
        '                Denial.OUT_OF_BOUNDS,\n                f"[{address:#x}',
        "only the start of an access has to lie inside",
    ),
    Mutant(
        "R-BIND-5",
        "memory/access.py",
        "if entry.scope is Scope.WINDOW and entry.stream is not self._stream:",
        "if False:",
        "a window works on every QP of its PD",
    ),
    Mutant(
        "R-PRIV-3",
        "memory/access.py",
        "        if entry is None or entry.is_local or not entry.valid:",
        "        if entry is None or entry.scope is not Scope.PRIVILEGED and not entry.valid:",
        "a peer may name the privileged token",
    ),
    Mutant(
        "R-INVAL-1",
        "memory/access.py",
        "if entry.scope is Scope.FAST_REMOTE and not entry.rights & REMOTE_RIGHTS:",
        "if False:",
        "a peer may take a region without remote rights",
    ),
    Mutant(
        "R-RESX-3",
        "iwarp/inbound.py",
        "            self._invalidate(invalidated, receive, ulpdu)\n",
        "",
        "an invalidating message invalidates nothing",
    ),
    Mutant(
        "R-INVAL-4",
        "memory/regions.py",
        '        if self.windows:\n            raise InvalidState(\n                f"{self.name} deregister',
        '        if False:\n            raise InvalidState(\n                f"{self.name} deregister',
        "a region goes while windows lie on it",
    ),
    Mutant(
        "R-TOKEN-3",
        "memory/tokens.py",
        "            index = 1 + self._draw((1 << 24) - 1)\n            if index not in self._by_index and",
        "            index = 1 + len(self._by_index) + len(self._resting)\n            if index not in self._by_index and",
        "tokens are counted up",
    ),
    Mutant(
        "R-READ-5",
        "iwarp/inbound.py",
        "        if request.on_success is not None:\n",
        "        if False:\n",
        "a read with local invalidate invalidates nothing",
    ),
    Mutant(
        "R-SENDINV-2",
        "iwarp/inbound.py",
        "        except AccessDenied as denied:\n            cause = (\n",
        "        except AccessDenied as denied:\n"
        "            if denied:\n"
        "                return\n"
        "            cause = (\n",
        "an invalid token in an invalidating message does nothing",
    ),
    Mutant(
        "R-SENDINV-7",
        "memory/access.py",
        "        if entry.invalidate is None:\n",
        "        if entry.invalidate is None or entry.scope is Scope.WINDOW:\n",
        "a peer cannot take back a window",
    ),
    Mutant(
        "R-INV-3",
        "memory/regions.py",
        "        self.check_invalidate()\n        self.token.close()\n",
        "        self.check_invalidate()\n",
        "an invalidated window goes on giving access",
    ),
    Mutant(
        "R-FRINIT-5",
        "memory/regions.py",
        "        self.page_limit = page_limit\n",
        "        type(self).page_limit = page_limit\n",
        "all regions have the page limit of the last one initialised",
    ),
    # ---- connections
    Mutant(
        "R-CONN-5",
        "ndk/connect_arguments.py",
        "found.append(limit if value is None else min(value, limit))",
        "found.append(limit if value is None else value)",
        "read limits are not lowered to the adapter's",
    ),
    Mutant(
        "R-LIM-5",
        "iwarp/startup.py",
        "            ird = min(ird, request.peer_ord)\n",
        "            pass\n",
        "the passive side is told the adapter's limit",
    ),
    Mutant(
        "R-LIM-7",
        "iwarp/startup.py",
        "here.pair.outbound_read_limit = ord_limit",
        "here.pair.outbound_read_limit = self._limits[1]",
        "every QP has the adapter's outbound limit",
    ),
    Mutant(
        "R-MODSRQ-1",
        "queues/shared.py",
        "        if 0 < depth < len(self._receives):\n",
        "        self.threshold = threshold or self.threshold\n        if 0 < depth < len(self._receives):\n",
        "the threshold changes although the depth is refused",
    ),
    Mutant(
        "R-MODSRQ-2",
        "queues/shared.py",
        "            self.depth = depth\n        if threshold:\n",
        "            self.depth = depth\n            self.armed = self.threshold > 0\n        if threshold:\n",
        "a new depth arms the notification",
    ),
    Mutant(
        "R-REJECT-1",
        "iwarp/startup.py",
        "here.out.add_startup(self._responder.reject(private_data))",
        'here.out.add_startup(self._responder.reject(b""))',
        "the private data of a rejection is lost",
    ),
    Mutant(
        "R-DISC-2",
        "iwarp/ending.py",
        "        if here.local_fin and here.peer_fin:\n",
        "        if here.local_fin:\n",
        "a disconnect does not wait for the peer's",
    ),
    Mutant(
        "R-DEV-1",
        "ndk/connector.py",
        "        if self._told_end:\n            return\n        self._told_end = True\n"
        "        self._disconnected.set_result(how)\n",
        "        if not self._disconnected.done:\n            self._disconnected.set_result(how)\n",
        "the end of a connection is told as often as it ends",
    ),
    Mutant(
        "R-FLUSH-6",
        "iwarp/ending.py",
        "            here.tell(events.PeerDisconnected())",
        '            self._flush(Aborted("peer"))\n            here.tell(events.PeerDisconnected())',
        "the peer's notice flushes",
    ),
    Mutant(
        "R-QP-6",
        "ndk/connector.py",
        "        if qp._pair.flushing:\n",
        "        if False:\n",
        "a QP is connected twice",
    ),
    Mutant(
        "R-EP-1",
        "ndk/connector.py",
        "        ENDPOINTS.share(address, self)\n        self._held = address\n",
        "        pass\n",
        "connectors hold no address",
    ),
    Mutant(
        "R-CONNSE-1",
        "ndk/connect_arguments.py",
        "    if target in endpoint._destinations:\n",
        "    if False:\n",
        "a shared endpoint connects twice to one destination",
    ),
    Mutant(
        "R-LISTEN-3",
        "ndk/listener.py",
        "        if self._sockets:\n",
        "        if False:\n",
        "a listener listens twice",
    ),
    Mutant(
        "R-PAUSE-1",
        "ndk/listener.py",
        "            self._paused = pause\n",
        "            self._paused = False\n",
        "pausing does nothing",
    ),
    Mutant(
        "R-CONN-6",
        "ndk/connector.py",
        "        self._context.counters.connect_failure += 1\n        self._peer",
        "        self._context.counters.connect_failure += 1\n"
        "        if self._qp is not None:\n"
        "            self._qp._pair.flush(error)\n"
        "        self._peer",
        "a failed connect uses up the QP",
    ),
    Mutant(
        "R-REJECT-2",
        "iwarp/startup.py",
        "            here.out.add_startup(self._responder.reject(private_data))\n        self._ending.last_words()\n",
        "            here.out.add_startup(self._responder.reject(private_data))\n"
        "            self._ending.last_words()\n",
        "the active side's reject does nothing",
    ),
    Mutant(
        "R-CDATA-3",
        "ndk/connector.py",
        "            if self._data is None:\n",
        "            if self._data is None or self._core is not None and self._core.state is State.ANSWERED:\n",
        "the active side has the peer's data only when it has completed",
    ),
    Mutant(
        "R-PDATA-4",
        "ndk/context.py",
        "max_caller_data=max_private_data(config.mpa_revision),",
        "max_caller_data=max_private_data(config.mpa_revision) + 4,",
        "the octets of the negotiation count as room for private data",
    ),
    Mutant(
        "R-LIM-2",
        "iwarp/negotiation.py",
        "            ord_ = min(ord_, answer.ird)",
        "            ord_ = answer.ird",
        "the outbound limit is the peer's inbound one (active)",
    ),
    Mutant(
        "R-DEV-4",
        "ndk/connector.py",
        "            elif isinstance(event, events.PeerDisconnected):\n",
        "            elif isinstance(event, events.PeerDisconnected):\n"
        "                if self._qp is not None:\n"
        "                    self._qp._pair._flush_receives()\n",
        "the peer's notice cancels the receives",
    ),
    Mutant(
        "R-IW-1",
        "iwarp/startup.py",
        "        self._start_stream(self.negotiated, fenced=True)\n",
        "        self._start_stream(self.negotiated, fenced=False)\n",
        "the passive side sends before it has heard anything",
    ),
    Mutant(
        "A-18",
        "ndk/connector.py",
        "        if core is not None:\n            if core.is_over:\n",
        "        if core is not None and not core.is_over:\n            if core.is_over:\n",
        "a connector is used again after its end",
    ),
    Mutant(
        "E-11",
        "ndk/connector.py",
        "            self._on_disconnect = on_disconnect\n"
        "            pending = self._request(what)\n"
        "            self._complete()\n",
        "            pending = self._request(what)\n            self._complete()\n",
        "the callback given to complete_connect is not called",
    ),
    # ---- what a request may not do
    Mutant(
        "R-MEM-6",
        "iwarp/inbound.py",
        "        copy(payload, targets)\n",
        "        copy(payload, targets)\n"
        "        if self.pair.receives:\n"
        "            self.pair.complete_receive(self.pair.receives[0], 0, solicited=False)\n",
        "a write of the peer takes a receive",
    ),
    Mutant(
        "R-WR-16",
        "ndk/memory_requests.py",
        "    if not window.posted and not region.posted:\n",
        "    if True:\n",
        "a bind is refused although what is queued makes it right",
    ),
    # ---- objects
    Mutant(
        "R-CLOSE-2",
        "ndk/object.py",
        "or self._busy or self._successors",
        "or self._successors",
        "a close does not wait for running callbacks",
    ),
    Mutant(
        "R-CLOSE-5",
        "ndk/object.py",
        "or self._busy or self._successors",
        "or self._busy",
        "a close does not wait for successors",
    ),
    Mutant(
        "R-CLOSE-4",
        "ndk/object.py",
        "        return Promise(self._runtime, what, tell=self._tell_outcome, **options)",
        "        return Promise(self._runtime, what, **options)",
        "the outcome of a request is told after the close",
    ),
    Mutant(
        "R-CLOSE-6",
        "ndk/object.py",
        '        if self._closing:\n            state = "closed"',
        '        if self._closed and False:\n            state = "closed"',
        "objects take calls after their close",
    ),
    Mutant(
        "R-CLOSE-11",
        "ndk/object.py",
        "        if not self._closing:  # R-CLOSE-11",
        "        if True:  # R-CLOSE-11",
        "events come after the close",
    ),
    Mutant(
        "R-OPEN-2",
        "ndk/adapter.py",
        "if offered.major == major and minor <= offered.minor:",
        "if offered.major == major:",
        "every minor version is taken",
    ),
    Mutant(
        "R-OBJ-3",
        "ndk/cq.py",
        'return self._next("wait", max_results, kind).result(timeout)',
        "return self.next_results(max_results=max_results, kind=kind).result(timeout)",
        "wait calls what the program may have replaced",
    ),
    Mutant(
        "R-LAM-4",
        "ndk/lam.py",
        "        self.fbo = address % PAGE_SIZE\n",
        "        self.fbo = 0\n",
        "mappings begin at the start of a page",
    ),
    Mutant(
        "R-OBJ-1",
        "ndk/connector.py",
        "        self._qp = qp\n        self._depend_on(qp)\n",
        "        self._qp = qp\n",
        "a connector does not depend on its QP",
    ),
    Mutant(
        "R-CREATE-5",
        "ndk/context.py",
        "        if not self.has_room(kind):\n",
        "        if False:\n",
        "no limit on objects",
    ),
    Mutant(
        "R-CLOSE-3",
        "ndk/qp.py",
        '        self._flush("closed by this side")\n',
        "",
        "the close of a QP flushes nothing",
    ),
)


def main() -> int:
    """Run the mutants that the command line names, or all; the result is the exit status."""
    wanted = set(sys.argv[1:])
    mutants = [mutant for mutant in MUTANTS if not wanted or mutant.rule in wanted]
    begun = time.monotonic()
    with _copy(ROOT) as whole:
        if not _passes_unmutated(whole, mutants):
            return 1
        with ThreadPoolExecutor(WORKERS) as pool:
            outcomes = list(pool.map(lambda mutant: _try(whole, mutant), mutants))
    _show(outcomes, time.monotonic() - begun)
    return not all(outcome.caught for outcome in outcomes)


def _passes_unmutated(whole: Path, mutants: list[Mutant]) -> bool:
    tests = sorted({test for mutant in mutants for test in proofs().tests.get(mutant.rule, ())})
    status, told = _run(whole, tests)
    if status:
        print(f"the tests fail without any mutation:\n{told}", file=sys.stderr)
    return not status


def _try(whole: Path, mutant: Mutant) -> Outcome:
    """What the tests of its rule say to a mutant. `whole`: a copy of the project in which they have passed.

    The byte code that this has left goes along: compiling all again would take longer than most of the tests.
    """
    tests = proofs().tests.get(mutant.rule, ())
    begun = time.monotonic()
    with _copy(whole) as copy:
        path = copy / "src" / "softndk" / mutant.file
        path.write_text(mutant.applied_to(path.read_text(encoding="utf-8")), encoding="utf-8")
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            stale.unlink()
        status, told = _run(copy, tests)
    return Outcome(mutant, len(tests), status, told, time.monotonic() - begun)


@contextmanager
def _copy(source: Path) -> Iterator[Path]:
    """A copy of what the tests need, in a folder of its own; without byte code if it is made from the project itself."""
    ignore = shutil.ignore_patterns("__pycache__") if source == ROOT else None
    with tempfile.TemporaryDirectory(prefix="softndk-mutant-") as folder:
        copy = Path(folder)
        for name in ("src", "tests", "scripts"):
            shutil.copytree(source / name, copy / name, ignore=ignore)
        shutil.copy(source / "pyproject.toml", copy)
        yield copy


def _run(copy: Path, tests: "list[str] | tuple[str, ...]") -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=60"]
    command += ["-m", "not slow and not stress and not judge", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "SOFTNDK_TIMEOUT_SCALE": PATIENCE, "CI": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _show(outcomes: list[Outcome], seconds: float) -> None:
    shown = Table("rule", "mutation", "tests", "caught", "first test that failed", "s", title="Mutants")
    for outcome in outcomes:
        mutant = outcome.mutant
        caught = "yes" if outcome.caught else f"NO ({outcome.status})"
        shown.add_row(mutant.rule, mutant.what, str(outcome.tests), caught, outcome.first, f"{outcome.seconds:.1f}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(shown)
    missed = [outcome for outcome in outcomes if not outcome.caught]
    for outcome in missed:
        last_lines = "\n   ".join(outcome.told.strip().splitlines()[-20:])
        print(f"{outcome.mutant.rule}, {outcome.mutant.what}: not caught, pytest ended with {outcome.status}:")
        print(f"   {last_lines}")
    console.print(f"{len(outcomes) - len(missed)} of {len(outcomes)} mutants caught, {seconds:.0f} s", highlight=False)
    if missed:
        print("not caught:", "; ".join(f"{outcome.mutant.rule}, {outcome.mutant.what}" for outcome in missed))


if __name__ == "__main__":
    sys.exit(main())
