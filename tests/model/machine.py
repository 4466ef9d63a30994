"""The state machine: random verbs, faults and closes on two connected ends and on their model, compared after each step.

Run as a program it goes on for a given time: python -m tests.model.machine --minutes 20 [--seed N]
"""

import argparse
import pickle
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from softndk import CqNotify, InvalidHandle, NdkError, Result, Status
from softndk.conformance.model import ModelPair
from softndk.conformance.model_checks import may_fail_later, receive_refusals, refusals
from softndk.conformance.model_closing import Closing
from softndk.conformance.model_end import ModelEnd
from softndk.conformance.model_memory import ModelMemory
from softndk.conformance.model_orders import TooManyOrders, outcomes
from softndk.conformance.model_queues import ModelReceive, ModelSrq, Posted, Sge
from tests.model.drivers import (
    MAX_SGE,
    OBJECTS,
    OF_A_CONNECTION,
    PATIENCE_S,
    QUEUE_DEPTH,
    RIGHTS,
    SIZE,
    SRQ_DEPTH,
    Carrier,
    End,
    MemoryWire,
    Shape,
    SocketWire,
    make_pair,
)
from tests.model.tally import Tally
from tests.model.wishes import (
    LOCAL_KINDS,
    LOCAL_NAMES,
    PAGES_TO_DEFER,
    Spot,
    Wish,
    calmed,
    local_sges,
    make,
    shapes,
    sides,
    spots,
    traffic,
    wishes,
    wishes_of,
)

ROUND, STEPS = 25, 60


class Unknown(Exception):
    """The comparison can't go on with this connection: what is under way has more than one possible content."""


class ModelMachine(RuleBasedStateMachine):
    """`carrier` of a subclass says how the ends are joined."""

    carrier: ClassVar[Carrier]
    tally: ClassVar[Tally]

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.numbers = 0
        self.ends: dict[str, End] = {}
        self.pair: ModelPair | None = None
        self.shape: Shape
        self.holding = False  # a message is held back: how much had arrived with it is not known

    @initialize(shape=shapes)
    def begin(self, shape: Shape) -> None:
        self.tally.examples += 1
        self.ends = {name: End(name, self.carrier.adapter(name, shape.mss)) for name in ("a", "b")}
        self.open(shape)
        self.step("connect")

    # ---- helpers

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def model(self, side: str) -> ModelEnd:
        assert self.pair is not None
        return self.pair.ends[side == "b"]

    def peer(self, side: str) -> str:
        return "b" if side == "a" else "a"

    def say(self, text: str) -> None:
        self.words.append(f"{len(self.words) + 1:4}. {text}")

    def step(self, name: str, act: Callable[[], object] | None = None) -> None:
        """Do one thing, let both ends come to rest, compare."""
        self.tally.steps[name] += 1
        try:
            if act is not None:
                act()
            self.rest()
            for end in self.ends.values():
                end.make_anew()
        except AssertionError as error:
            self.tally.first_difference = self.tally.first_difference or self.tally.examples
            raise AssertionError(f"{error}\nsteps:\n" + "\n".join(self.words)) from error
        except Unknown:
            self.tally.given_up += 1
            self.renew(self.shape)
        except TooManyOrders:
            self.tally.too_many_orders += 1
            self.start_over()
        self.tally.held += self.holding
        self.tally.waiting_closes += any(
            not close.pending.done() for end in self.ends.values() for close in end.closes.values()
        )

    def rest(self) -> None:
        """Both ends come to rest; then the model must be where they are. If it is not, and the order of events is not
        known, the other orders are tried that the rules leave open: one of them must lead there.
        """
        pair = self.pair
        assert pair is not None
        known = self.carrier.exact and pair.ends[0].receive_cq.depth == 64 and not self.holding
        before = b"" if known else pickle.dumps((pair, [end.kept for end in self.ends.values()]))
        pair.settle()
        self.carrier.settle(self.ends["a"], self.ends["b"])
        try:
            self.count(self.compare_all())
        except AssertionError as difference:
            start = pickle.loads(before)[0].ends if before else ()
            others = self.other_orders(before) if before else set()
            if others is not None:
                states = [*(str(end) for end in start), "likeliest:", *(str(end) for end in pair.ends)]
                shown = "\n".join([f"{difference}", "model before:", *states, "in another order:", *sorted(others)[:8]])
                raise AssertionError(shown) from None
        self.holding = any(model.held for model in self.models())
        if before and self.holding and self.hides_something(before):
            raise Unknown

    def hides_something(self, before: bytes) -> bool:
        """Orders that look alike now have left different things behind a message that is held back."""
        stands = self.pair, [end.kept for end in self.ends.values()]
        hidden = set()
        for story in self.outcomes(before):
            self.stand(*story)
            with suppress(AssertionError):
                self.compare_all()
                hidden.add("\n".join(f"{end}{[item.data for item in end.incoming]}" for end in self.models()))
        self.stand(*stands)
        return len(hidden) > 1

    def stand(self, pair: ModelPair | None, kept: list[tuple[ModelMemory, ModelSrq]]) -> None:
        self.pair = pair
        for end, models in zip(self.ends.values(), kept, strict=True):
            end.kept = models

    def other_orders(self, before: bytes) -> set[str] | None:
        """None: an order that the rules leave open leads from `before` to where both ends are. Else how each differs."""
        differences = set()
        for pair, kept in self.outcomes(before):
            self.stand(pair, kept)
            try:
                self.count(self.compare_all())
            except AssertionError as difference:
                differences.add(str(difference))
            else:
                self.tally.other_orders += 1
                return None
        return differences

    def outcomes(self, before: bytes) -> Iterator[tuple[ModelPair, list[tuple[ModelMemory, ModelSrq]]]]:
        return outcomes(before, resets_destroy=self.carrier.resets_destroy)

    def count(self, new: list[Result]) -> None:
        self.tally.results.update(f"{result.type.name} {result.status.name}" for result in new)

    def compare_all(self) -> list[Result]:
        """Returns the results that are new."""
        return [result for side in ("a", "b") for result in self.compare(side)]

    def compare(self, side: str) -> list[Result]:
        end, model = self.ends[side], self.model(side)
        line = end.line
        new: list[Result] = []
        for cq, expected in {line.receive_cq: model.receive_cq, line.initiator_cq: model.initiator_cq}.items():
            results = end.results(cq)
            new += results[len(expected.entries) :]
            expected.compare(results, end.tokens)
            wanted = Status.BUFFER_OVERFLOW if expected.failed else Status.SUCCESS
            assert cq.status is wanted, f"{side}: CQ status {cq.status.name}, {wanted.name} expected"
            assert line.fired[cq] == expected.fired, f"{side}: told {line.fired[cq]}, {expected.fired} expected"
        end.compare_closes(model)
        assert end.srq_fired == end.model_srq.fired, f"{side}: SRQ told {end.srq_fired}, {end.model_srq.fired} expected"
        assert line.events == model.events, f"{side}: events {line.events}, {model.events} expected; {line.reasons}"
        self.compare_end(side, end, model)
        for name, buffer in model.memory.buffers.items():
            if buffer != end.buffers[name]:
                where = next(i for i in range(len(buffer)) if buffer[i] != end.buffers[name][i])
                found, due = (octets[where : where + 16].hex() for octets in (end.buffers[name], buffer))
                raise AssertionError(f"{side}: memory {name} differs from octet {where} on: {found}, {due} expected")
        for name, mr in end.mrs.items():
            assert mr._region.valid == model.memory.mrs[name].valid, f"{side}: {name} valid: {mr._region.valid}"
        for name, mw in end.mws.items():
            assert mw._window.valid == model.memory.mws[name].valid, f"{side}: {name} valid: {mw._window.valid}"
        return new

    @staticmethod
    def compare_end(side: str, end: End, model: ModelEnd) -> None:
        core = end.line.connector._core
        assert core is not None
        allowed = {
            "up": {"connected"},
            "peer closed": {"peer closed"},
            "closing": {"disconnecting"},
            "closed": {"closed"},
            "failed": {"terminating", "failed"},
        }
        if model.state != "gone":
            assert core.state.value in allowed[model.state], f"{side}: {core.state.value}, {model.state} expected"
        pending = end.line.disconnect
        if pending is None:
            return
        if model.disconnect == "pending":
            assert not pending.done(), f"{side}: the disconnect is done"
            return
        assert pending.done(), f"{side}: the disconnect is not done, {model.disconnect} expected"
        error = pending.exception(0)
        said = error.status.name if isinstance(error, NdkError) else "SUCCESS"
        assert said == model.disconnect, f"{side}: disconnect ended with {said}, {model.disconnect} expected"

    def open(self, shape: Shape) -> None:
        self.shape = shape
        self.say(f"connect: {shape}")
        self.tally.connections += 1
        self.pair = make_pair(self.ends["a"], self.ends["b"], shape, (self.number(), self.number()), self.carrier)

    def leave(self) -> None:
        """Count what the connection came to."""
        for side, end in self.ends.items():
            model = self.model(side)
            end_ = f"disconnect {model.disconnect}" if model.disconnect else ", ".join(model.events)
            self.tally.ends[end_ or {"up": "none yet", "gone": "closed"}.get(model.state, model.state)] += 1
            for cq in end.line.fired:
                self.tally.notified.update(f"CQ {status.name}" for status in end.line.fired[cq])

    def prepare_for(self, side: str, post: Posted) -> None:
        """Care: the peer has a receive for a send."""
        other = self.peer(side)
        model = self.model(other)
        if model.state not in ("up", "peer closed", "closing") or model.qp_closing.asked:
            return
        before = sum(item.kind in ("send", "send_immediate") for item in self.model(side).waiting)
        if len(model.receives) + len(model.srq.receives if model.srq else ()) <= before:
            life = model.memory.mrs["rw"].life
            self.post_receive(other, (Sge(f"L:rw:{life}", RIGHTS["rw"][0], SIZE),))
            self.rest()  # it may have been waited for

    def post_wish(self, side: str, wish: Wish, *, defer: bool) -> Posted:
        if self.shape.calm:
            wish = calmed(wish)
        post = make(self.model(side), self.model(self.peer(side)), wish, self.number(), defer=defer)
        waits = self.model(self.peer(side)).srq is not None and wish.pages in PAGES_TO_DEFER
        if wish.careful and post.kind in ("send", "send_immediate") and not waits:
            self.prepare_for(side, post)
        model = self.model(side)
        allowed = refusals(model, post)
        self.say(f"{side} posts {post}")
        status = self.ends[side].post(post, self.ends[self.peer(side)])
        if status is None:
            assert not allowed or may_fail_later(model, post, allowed), (
                f"{side}: {post} was taken, {set(allowed)} expected"
            )
            model.post(post)
            self.tally.requests[post.kind] += 1
        else:
            assert status in allowed, f"{side}: {post} was refused with {status.name}, allowed: {set(allowed)}"
            model.release()  # R-DEFER-3
            self.tally.refusals[f"{post.kind} {status.name}"] += 1
        return post

    def post_receive(self, side: str, sges: tuple[Sge, ...]) -> None:
        model = self.model(side)
        receive = ModelReceive(self.number(), sges)
        self.say(f"{side} posts receive {receive.context} {sges}{' to the SRQ' if model.srq else ''}")
        if model.srq is not None:
            status = self.ends[side].receive(receive, shared=True)
            full, long = len(model.srq.receives) >= SRQ_DEPTH, len(sges) > MAX_SGE
            reasons: set[Status | None] = {Status.NO_MORE_ENTRIES} if full else set()
            reasons |= {Status.DATA_OVERRUN} if long else set()
            reasons |= {Status.INVALID_HANDLE} if model.srq.closing.asked else set()
            assert status in (reasons or {None}), f"{side}: SRQ receive: {status}, {reasons} allowed"
            if status is None:
                model.srq.receives.append(receive)
                assert self.pair is not None
                self.pair.kick(model)
            return
        allowed = receive_refusals(model, receive, QUEUE_DEPTH)
        status = self.ends[side].receive(receive, shared=False)
        if status is None:
            assert not allowed, f"{side}: receive was taken, {set(allowed)} expected"
            model.post_receive(receive)
        else:
            assert status in allowed, f"{side}: receive was refused with {status.name}, allowed: {set(allowed)}"

    # ---- rules

    def post(self, side: str, wish: Wish) -> None:
        if wish.careful:
            self.bring_up()
            if self.worn_out(side) and wish.pages[0]:
                self.renew(self.shape)
        defer = wish.pages in PAGES_TO_DEFER and wish.careful
        self.step(wish.kind, lambda: self.post_wish(side, wish, defer=defer))

    @rule(side=sides, wish=wishes_of("send"))
    def send(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("write"))
    def write(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("read"))
    def read(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("bind"))
    def bind(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("fast_register"))
    def fast_register(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("invalidate"))
    def invalidate(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("send_immediate"))
    def send_immediate(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("fetch_add"))
    def fetch_add(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, wish=wishes_of("compare_swap"))
    def compare_swap(self, side: str, wish: Wish) -> None:
        self.post(side, wish)

    @rule(side=sides, several=st.lists(traffic, min_size=2, max_size=4))
    def burst_of_traffic(self, side: str, several: list[Wish]) -> None:
        self.burst_of(side, several)

    @rule(side=sides, several=st.lists(wishes, min_size=2, max_size=QUEUE_DEPTH))
    def burst(self, side: str, several: list[Wish]) -> None:
        self.burst_of(side, several)

    def burst_of(self, side: str, several: list[Wish]) -> None:
        """Requests that are carried out in one go (R-DEFER)."""
        if several[0].careful:
            self.bring_up()

        def act() -> None:
            for wish in several:
                last = wish is several[-1]
                self.post_wish(side, wish, defer=not last)
                if self.model(side).released and not last:
                    self.rest()  # a refusal or a full queue has started them

        self.step("burst", act)

    @rule(
        side=sides,
        where=st.lists(spots(LOCAL_NAMES), max_size=4),
        careful=st.sampled_from([True] * 7 + [False]),
        full=st.sampled_from([False] * 7 + [True]),
    )
    def receive(self, side: str, where: list[Spot], careful: bool, full: bool) -> None:
        sges = local_sges(self.model(side), tuple(where), careful=careful, write=True)
        if careful and sum(sge.length for sge in sges) < 600:
            sges = local_sges(self.model(side), (Spot("rw", 0, SIZE),), careful=True, write=True)

        def act() -> None:
            for _ in range(SRQ_DEPTH + 1 if full else 1):
                self.post_receive(side, sges)

        self.step("receive", act)

    @rule(side=sides, first=st.booleans(), kind=st.sampled_from(list(CqNotify)))
    def arm(self, side: str, first: bool, kind: CqNotify) -> None:
        self.arm_one(side, first, kind)

    def arm_one(self, side: str, first: bool, kind: CqNotify) -> None:
        line, model = self.ends[side].line, self.model(side)
        self.say(f"{side} arms its {'receive' if first else 'initiator'} CQ for {kind.name}")

        cq, expected = (line.receive_cq, model.receive_cq) if first else (line.initiator_cq, model.initiator_cq)

        def act() -> None:
            if not self.refused(expected.closing, lambda: cq.arm(kind)):
                expected.arm(kind)

        self.step("arm", act)

    @rule(side=sides, first=st.booleans(), count=st.sampled_from([0, 1, 2, 64]))
    def get_results(self, side: str, first: bool, count: int) -> None:
        line, model = self.ends[side].line, self.model(side)
        cq, expected = (line.receive_cq, model.receive_cq) if first else (line.initiator_cq, model.initiator_cq)
        self.say(f"{side} takes {count} results of its {'receive' if first else 'initiator'} CQ")

        def act() -> None:
            if expected.closing.asked:
                self.refused(expected.closing, lambda: cq.get_results(count))
                return
            found = [result.request_context for result in cq.get_results(count)]
            due = [entry.context for entry in expected.entries[:count]]
            expected.taken(count)
            assert found == due, f"{side}: took {found}, {due} expected"

        self.step("get_results", act)

    @rule(side=sides, what=st.sampled_from(["rw", "ro", "lo", "at", 1, 2, 3]))
    def reconfigure(self, side: str, what: str | int) -> None:
        """Register a normal region again, or modify the SRQ: to a threshold."""
        if isinstance(what, str):
            self.register_again(side, what)
        else:
            self.modify_srq(side, what)

    def register_again(self, side: str, name: str) -> None:
        end, memory = self.ends[side], self.model(side).memory
        self.say(f"{side} registers {name} again")
        busy = memory.windows_on(memory.mrs[name]) > 0

        def act() -> None:
            status = end.register_again(name)
            reasons: set[Status | None] = {Status.DEVICE_BUSY} if busy else set()  # R-INVAL-4
            reasons |= {Status.INVALID_HANDLE} if memory.mrs[name].closing.asked else set()
            assert status in (reasons or {None}), f"{side}: {name} again: {status}, {reasons} allowed"

        self.step("register_again", act)

    def modify_srq(self, side: str, threshold: int) -> None:
        end = self.ends[side]
        self.say(f"{side} modifies its SRQ: threshold {threshold}")

        def act() -> None:
            modify = lambda: end.srq.modify(notify_threshold=threshold).result(PATIENCE_S)  # noqa: E731
            if not self.refused(end.model_srq.closing, modify):
                end.model_srq.modify(threshold)

        self.step("modify_srq", act)

    @staticmethod
    def refused(closing: Closing, call: Callable[[], object]) -> bool:
        """R-CLOSE-6: an object whose close was asked for takes no call; another takes this one."""
        try:
            call()
        except InvalidHandle:
            assert closing.asked, "refused, though its close was not asked for"
            return True
        assert not closing.asked, "taken, though its close was asked for"
        return False

    @rule(
        side=sides,
        what=st.sampled_from(["w0", "w1", "fr0", "fr1"] * 3 + ["qp", "srq"] * 2 + [*RIGHTS, *OF_A_CONNECTION]),
    )
    def close_object(self, side: str, what: str) -> None:
        """Whatever needs it, and whatever it is needed for. A CQ is armed then: R-CLOSE-11."""
        if what in ("receive cq", "initiator cq"):
            self.arm_one(side, what == "receive cq", CqNotify.ANY)
        self.step(f"close {what}", lambda: self.close_one(side, what))

    @rule(side=sides, wish=st.sampled_from(LOCAL_KINDS).flatmap(wishes_of))
    def close_behind(self, side: str, wish: Wish) -> None:
        """What a deferred request is to change."""
        self.bring_up()

        def act() -> None:
            post = self.post_wish(side, replace(wish, careful=True), defer=True)
            if self.model(side).released:
                self.rest()  # a refusal or a full queue has started what was deferred
            self.close_one(side, post.mw if post.mw and wish.pages[0] else post.target)

        self.step("close behind a request", act)

    @rule(side=sides, draw=st.integers(0, 9999))
    def close_everything(self, side: str, draw: int) -> None:
        """In any order, now and then; the end begins anew behind that."""
        if draw % 8:
            return
        order = random.Random(draw).sample(OBJECTS, len(OBJECTS))

        def act() -> None:
            for name in order:
                self.close_one(side, name)
                self.rest()

        end = self.ends[side]
        self.step("close everything", act)
        if self.ends[side] is not end:
            return  # it has begun anew already
        assert all(close.item.closed for close in end.closes.values())
        self.leave_connection()
        end.release()
        self.ends[side] = End(side, end.adapter)
        self.open(self.shape)
        self.step("connect")

    def close_one(self, side: str, name: str) -> None:
        """Ask for the close of one object, once."""
        end, model = self.ends[side], self.model(side)
        if model.closings()[name].asked or (name == "initiator cq" and model.initiator_cq is model.receive_cq):
            return
        self.say(f"{side} closes its {name}")
        end.close_one(name)
        if name == "connector":
            assert self.pair is not None
            self.pair.close(model)
        else:
            model.ask_to_close(name)

    @rule(
        side=sides,
        what=st.sampled_from(["nothing"] * 5 + ["flush", "disconnect", "close", "reset", "new"]),
        shape=shapes,
    )
    def incident(self, side: str, what: str, shape: Shape) -> None:
        """What ends a connection, now and then."""
        model = self.model(side)
        if what == "nothing" or (what != "new" and model.state == "gone"):
            return
        assert self.pair is not None
        if what == "new":
            self.renew(shape)
        elif what == "disconnect":
            self.disconnect(side)
        elif what == "flush":
            self.say(f"{side} flushes")
            pair, qp = self.pair, self.ends[side].line.qp
            if not self.refused(model.qp_closing, qp.flush):
                pair.flush(model)
            self.step("flush")
        elif what == "close":
            self.step("close", lambda: self.close_one(side, "connector"))
        elif self.model(self.peer(side)).state != "gone":
            self.say(f"{side} is reset")
            self.carrier.cut(self.ends[side], self.ends[self.peer(side)])
            self.pair.cut(model)
            self.step("reset")

    def disconnect(self, side: str) -> None:
        self.say(f"{side} disconnects")
        assert self.pair is not None
        pending = self.ends[side].line.connector.disconnect()
        if self.pair.disconnect(self.model(side)):
            self.ends[side].line.disconnect = pending
        else:
            error = pending.exception(0)
            assert isinstance(error, NdkError)
            assert error.status is Status.CONNECTION_INVALID
        self.step("disconnect")

    @precondition(lambda self: self.pair is not None and any(m.state == "peer closed" for m in self.models()))
    @rule()
    def disconnect_too(self) -> None:
        for side in ("a", "b"):
            if self.model(side).state == "peer closed":
                self.disconnect(side)

    def models(self) -> tuple[ModelEnd, ModelEnd]:
        assert self.pair is not None
        return self.pair.ends

    def over(self) -> bool:
        return self.pair is not None and any(m.state in ("failed", "closed", "gone") for m in self.pair.ends)

    def worn_out(self, side: str) -> bool:
        """It can't post, or what it sends has no receive and never gets one."""
        peers = self.model(self.peer(side)).srq
        no_receives = peers is not None and peers.closing.asked and not peers.receives
        return self.model(side).qp_closing.asked or no_receives

    def bring_up(self) -> None:
        if self.over():
            self.renew(self.shape)

    def overran(self) -> bool:
        return self.pair is not None and any(m.receive_cq.failed or m.initiator_cq.failed for m in self.pair.ends)

    @precondition(overran)
    @rule(side=sides, first=st.booleans(), kind=st.sampled_from(list(CqNotify)))
    def arm_again(self, side: str, first: bool, kind: CqNotify) -> None:
        """R-CQERR-3: an overrun is told once, whatever the arm."""
        for _ in range(2):
            self.arm_one(side, first, kind)

    @precondition(over)
    @rule(shape=shapes)
    def connect_again(self, shape: Shape) -> None:
        self.renew(shape)

    def renew(self, shape: Shape) -> None:
        self.leave_connection()
        self.open(replace(shape, mss=self.shape.mss))
        self.step("connect")

    def leave_connection(self) -> None:
        """Both ends close what belongs to it."""
        assert self.pair is not None
        self.leave()
        for end, model in zip(self.ends.values(), self.pair.ends, strict=True):
            end.leave()
            self.pair.close(model)
            model.ask_to_close(*OF_A_CONNECTION)
            end.compare_closes(model)
            end.make_anew()

    def start_over(self) -> None:
        """Both ends begin anew: what their memory should be is not known."""
        self.leave()
        for side, end in tuple(self.ends.items()):
            end.close()
            self.ends[side] = End(side, end.adapter)
        self.open(self.shape)
        self.step("connect")

    def teardown(self) -> None:
        if self.pair is None:
            return
        self.leave()
        try:
            for end in self.ends.values():
                self.tally.notified["SRQ"] += end.srq_fired
                end.close()
        except TimeoutError as error:
            raise AssertionError(f"{error}\nsteps:\n" + "\n".join(self.words)) from error


class MemoryMachine(ModelMachine):
    """Octets are carried in memory, the order of events is known, but for a CQ overrun's."""

    carrier = MemoryWire()
    tally = Tally()


class SocketMachine(ModelMachine):
    """Real TCP."""

    carrier = SocketWire()
    tally = Tally()


# ---- long runs


def run_for(seconds: float, most: int, first_seed: int, only: str) -> int:
    """Run round after round, each with a seed of its own, for a time or up to `most` examples. Returns the exit status."""
    started = time.monotonic()
    choice = random.Random(first_seed)
    examples: Counter[type[ModelMachine]] = Counter()
    machines = [machine for machine in (MemoryMachine, SocketMachine) if only in machine.__name__]
    last = started
    while (now := time.monotonic()) - started < seconds and examples.total() < most:
        if now - last > 30:
            last = now
            print(f"{now - started:6.0f} s  {_progress(examples)}", flush=True)
        number = choice.getrandbits(32)
        machine = machines[examples.total() // ROUND % len(machines)]
        try:
            run_round(machine, number, shrink=False)
        except Exception:
            print(f"\nfailed in example {machine.tally.first_difference} of {machine.__name__};", end=" ")
            print(f"repeat with --only {machine.__name__} --round {number}", flush=True)
            raise
        examples[machine] += ROUND
    print(f"{time.monotonic() - started:6.0f} s  {_progress(examples)}; differences: none")
    for machine in machines:
        print(f"{machine.__name__}: {examples[machine]} examples")
        for line in machine.tally.lines():
            print(f"  {line}")
    return 0


def _progress(examples: Counter[type[ModelMachine]]) -> str:
    return ", ".join(
        f"{machine.__name__}: {count} examples, {machine.tally.steps.total()} steps"
        for machine, count in examples.items()
    )


def run_round(machine: type[ModelMachine], number: int, *, shrink: bool) -> None:
    """ROUND examples that follow from `number`. A difference is shown with its steps; `shrink` looks for few of them."""
    settings_ = settings(
        max_examples=ROUND,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    fresh = type(machine.__name__, (machine,), {})  # a seed belongs to the class that it was given to
    run_state_machine_as_test(seed(number)(fresh), settings=settings_)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--examples", type=int, default=sys.maxsize, help="stop after so many")
    parser.add_argument("--seed", type=int, default=None, help="of the whole run")
    parser.add_argument("--round", type=int, default=None, help="replay one round of 100 examples")
    parser.add_argument("--shrink", action="store_true", help="with --round: look for a short way to the difference")
    parser.add_argument("--only", default="", help="MemoryMachine or SocketMachine")
    options = parser.parse_args()
    if options.round is not None:
        machine = SocketMachine if "Socket" in options.only else MemoryMachine
        run_round(machine, options.round, shrink=options.shrink)
        return 0
    first_seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {first_seed} (repeat with --seed {first_seed})", flush=True)
    return run_for(options.minutes * 60, options.examples, first_seed, options.only)


if __name__ == "__main__":
    sys.exit(main())
