"""The state machine: random verbs, faults and closes on two connected ends and on their model, compared after each step.

Run as a program it goes on for a given time: python -m tests.model.machine --minutes 20 [--seed N]
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from softndk import CqNotify, InvalidHandle, NdkError, Status
from softndk.conformance.model_checks import may_fail_later, receive_refusals, refusals
from softndk.conformance.model_closing import Closing
from softndk.conformance.model_queues import ModelReceive, Posted, Sge
from tests.model.ends import (
    MAX_SGE,
    OBJECTS,
    OF_A_CONNECTION,
    PATIENCE_S,
    QUEUE_DEPTH,
    RIGHTS,
    SIZE,
    SRQ_DEPTH,
    End,
    Shape,
)
from tests.model.judged import Judged
from tests.model.tally import Tally
from tests.model.wires import MemoryWire, SocketWire
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


class ModelMachine(Judged):
    """What can be done to two ends."""

    @initialize(shape=shapes)
    def begin(self, shape: Shape) -> None:
        self.tally.examples += 1
        self.ends = {name: End(name, self.carrier.adapter(name, shape.mss)) for name in ("a", "b")}
        self.open(shape)
        self.step("connect")

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
