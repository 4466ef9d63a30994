"""Two ends and their model, side by side: what is done to both, step by step, and compared after each.

A step may end elsewhere than the model's likeliest way if an order that the rules leave open leads there.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from softndk import NdkError, Result, Status
from softndk.conformance.model import ModelPair
from softndk.conformance.model_end import ModelEnd
from softndk.conformance.model_memory import ModelMemory
from softndk.conformance.model_orders import TooManyOrders, outcomes
from softndk.conformance.model_queues import ModelSrq
from tests.model.ends import (
    OF_A_CONNECTION,
    End,
    Shape,
)
from tests.model.tally import Tally
from tests.model.wires import Carrier, make_pair


class Unknown(Exception):
    """The comparison can't go on with this connection: what is under way has more than one possible content."""


class Judged(RuleBasedStateMachine):
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

    def models(self) -> tuple[ModelEnd, ModelEnd]:
        assert self.pair is not None
        return self.pair.ends

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
