"""Monkeys: threads that do anything at any time on two adapters. Nothing may break inside, hang, or be lost."""

import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from softndk import (
    Adapter,
    Connector,
    Cq,
    IwarpConfig,
    Listener,
    Mr,
    MrFlag,
    NdkError,
    OpFlag,
    Qp,
    RemoteToken,
    Result,
    open_adapter,
)
from tests.attack.attack_tools import PATIENCE_S, in_thread

SECONDS = float(os.environ.get("SOFTNDK_STRESS_SECONDS", "1.5"))
CONFIG = IwarpConfig(terminate_drain_s=0.2, connect_timeout_s=1.0, accept_timeout_s=0.5, disconnect_timeout_s=0.5)
EXPECTED = (NdkError, TimeoutError)


class Counting:
    """What a QP was given and what came back: each post that did not raise has one result, in the end."""

    def __init__(self, qp: Qp) -> None:
        self.qp = qp
        self.lock = threading.Lock()  # one post at a time on one queue is the program's duty
        self.posted: list[int] = []

    def post(self, chance: random.Random, mr: Mr, context: int) -> None:
        with self.lock:
            choice = chance.randrange(6)
            if choice == 0:
                self.qp.receive(mr[0:64], context=context)
            elif choice == 1:
                self.qp.send(b"x" * chance.randrange(80), context=context, flags=chance.choice((0, OpFlag.DEFER)))
            elif choice == 2:
                self.qp.write(mr[0 : chance.randrange(4096)], mr.address, mr.remote_token, context=context)
            elif choice == 3:
                self.qp.read(mr[0:4096], mr.address, mr.remote_token, context=context)
            elif choice == 4:
                self.qp.send_and_invalidate(b"", RemoteToken(chance.getrandbits(32)), context=context)
            else:
                self.qp.send([], context=context)
            self.posted.append(context)


class Zoo:
    """Two adapters on each of which there are a queue, a region and a listener, and QPs that come and go."""

    def __init__(self, adapters: list[Adapter]) -> None:
        self.adapters = adapters
        self.cqs: list[Cq] = [adapter.create_cq(1 << 18) for adapter in adapters]
        self.pds = [adapter.create_pd() for adapter in adapters]
        rights = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE
        self.mrs = [pd.register_mr(bytearray(4096), rights) for pd in self.pds]
        self.listeners: list[Listener] = [adapter.listen() for adapter in adapters]
        self.qps: list[tuple[int, Counting]] = []
        self.connectors: list[Connector] = []
        self.results: list[Result] = []
        self.lock = threading.Lock()
        self.over = False
        self.number = 0

    def context(self) -> int:
        with self.lock:
            self.number += 1
            return self.number

    def run(self, seed: int) -> Counter[str]:
        chance = random.Random(seed)
        done: Counter[str] = Counter()
        actions = [self.connect] * 2 + [self.serve] * 2 + [self.post] * 12 + [self.reap] * 4 + [self.look]
        actions += [self.flush, self.disconnect, self.close, self.close]
        while not self.over:
            action = chance.choice(actions)
            try:
                action(chance)
                done[action.__name__] += 1
            except EXPECTED as error:
                done[type(error).__name__] += 1
        return done

    def new_qp(self, side: int) -> Counting:
        cq = self.cqs[side]
        qp = self.pds[side].create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8, max_initiator_sge=2)
        counting = Counting(qp)
        with self.lock:
            self.qps.append((side, counting))
        return counting

    def some_qp(self, chance: random.Random) -> tuple[int, Counting]:
        with self.lock:
            recent = self.qps[-12:]
        return chance.choice(recent) if recent else (0, self.new_qp(0))

    def some_connector(self, chance: random.Random) -> Connector | None:
        with self.lock:
            recent = self.connectors[-12:]
        return chance.choice(recent) if recent else None

    def connect(self, chance: random.Random) -> None:
        side = chance.randrange(2)
        pending = self.adapters[side].connect(self.new_qp(side).qp, self.listeners[1 - side].local_address)
        pending.add_done_callback(self.connected)
        if chance.random() < 0.2:
            pending.cancel()

    def connected(self, pending: Any) -> None:
        if pending.exception() is None:
            with self.lock:
                self.connectors.append(pending.result())

    def serve(self, chance: random.Random) -> None:
        side = chance.randrange(2)
        connector = self.listeners[side].next_request().result(0.002)
        with self.lock:
            self.connectors.append(connector)
        if chance.random() < 0.1:
            connector.reject(b"no")
        else:
            connector.accept(self.new_qp(side).qp).add_done_callback(lambda done: done.exception())

    def post(self, chance: random.Random) -> None:
        side, counting = self.some_qp(chance)
        counting.post(chance, self.mrs[side], self.context())

    def reap(self, chance: random.Random) -> None:
        cq = chance.choice(self.cqs)
        way = chance.randrange(3)
        if way == 0:
            found = cq.get_results(chance.randrange(1, 20))
        elif way == 1:
            found = cq.wait(chance.random() * 0.002)
        else:
            pending = cq.next_results(max_results=3)
            found = pending.result() if pending.done() else []
        with self.lock:
            self.results += found

    def look(self, chance: random.Random) -> None:
        adapter = chance.choice(self.adapters)
        assert repr(adapter.open_objects)
        assert adapter.query_statistics().connect >= 0

    def flush(self, chance: random.Random) -> None:
        self.some_qp(chance)[1].qp.flush()

    def disconnect(self, chance: random.Random) -> None:
        connector = self.some_connector(chance)
        if connector is not None:
            connector.disconnect().add_done_callback(lambda done: done.exception())

    def close(self, chance: random.Random) -> None:
        item = self.some_connector(chance) if chance.random() < 0.5 else self.some_qp(chance)[1].qp
        if item is not None:
            item.close()


def test_monkeys(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", broken.append)
    monkeypatch.setattr(threading, "excepthook", broken.append)
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo = Zoo([stack.enter_context(open_adapter(config=CONFIG)) for _ in range(2)])
        running = [in_thread(lambda number=number: zoo.run(seed + number)) for number in range(5)]  # type: ignore[misc]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not any(future.done() for future in running):
            threading.Event().wait(0.05)
        zoo.over = True
        done = sum((future.result(3 * PATIENCE_S) for future in running), Counter[str]())
        for connector in zoo.connectors:
            connector.close()
        for _, counting in zoo.qps:
            counting.qp.__exit__(None, None, None)
        for cq in zoo.cqs:
            zoo.results += cq.get_results()
    print(done)
    assert [getattr(item, "exc_value", item) for item in broken] == []
    posted = [context for _, counting in zoo.qps for context in counting.posted]
    came = Counter(result.request_context for result in zoo.results)
    assert [context for context, count in came.items() if count != 1] == []
    assert sorted(came) == sorted(posted)
