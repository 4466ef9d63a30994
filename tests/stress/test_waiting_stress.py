"""Many threads and tasks over one line of waiters: nothing lost, nothing doubled, nobody asleep beside an entry.

The run is drawn from a seed, which is printed; SOFTNDK_STRESS_SEED repeats the draw (not the interleaving) and
SOFTNDK_STRESS_SECONDS sets the length of each test.
"""

import asyncio
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest
import trio

import softndk.drivers.waiting
from softndk.drivers.runtime import Runtime
from softndk.errors import InvalidHandle
from tests.unit.drivers.driver_parts import PATIENCE_S, ByteCore, End, Entries, listening, running, until

SECONDS = float(os.environ.get("SOFTNDK_STRESS_SECONDS", "3"))
WAYS = ("thread", "poller", "canceller", "sharers", "asyncio", "asyncio cancelled", "trio", "callback")
"""To get an entry; the test is over when each has been taken."""
SEED = int(os.environ.get("SOFTNDK_STRESS_SEED", random.SystemRandom().getrandbits(32)))
KINDS = (1, 2)
LONGEST_NAP_S = 2.0 * PATIENCE_S / 10
"""How long an entry may lie in the queue while somebody waits for it. Waking takes micro- to milliseconds, or the
twentieth of a second after which a turn that nobody takes goes to the next."""

pytestmark = pytest.mark.stress


@pytest.fixture(autouse=True)
def frequent_thread_switches() -> Iterator[None]:
    print(f"repeat with SOFTNDK_STRESS_SEED={SEED}")
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


class Ledger:
    """Who got what, and how long each entry lay."""

    def __init__(self, runtime: Runtime) -> None:
        self.lock = threading.Lock()
        self.runtime = runtime
        self.source = Entries(runtime)
        self.produced = 0
        self.got: Counter[int] = Counter()
        self.by: Counter[str] = Counter()
        self.over = threading.Event()
        self.errors: list[BaseException] = []

    def produce(self, count: int) -> None:
        with self.runtime.lock:
            first, self.produced = self.produced, self.produced + count
            self.source.put(*range(first, first + count))

    def take(self, who: str, entries: list[int]) -> None:
        with self.lock:
            self.got.update(entries)
            self.by[who] += len(entries)

    def guarded(self, fn: Callable[[random.Random], None], number: int) -> threading.Thread:
        def run() -> None:
            try:
                fn(random.Random(SEED + number))
            except BaseException as error:
                self.errors.append(error)
                self.over.set()

        thread = threading.Thread(target=run, name=f"{fn.__name__}-{number}", daemon=True)
        thread.start()
        return thread

    # ---- producers

    def producer(self, rng: random.Random) -> None:
        while not self.over.is_set():
            self.produce(rng.choice((1, 1, 1, 2, 5, 100)))
            if rng.random() < 0.7:
                threading.Event().wait(rng.random() * 2e-3)

    # ---- consumers; each waits in its own way until the source closes

    def thread(self, rng: random.Random) -> None:
        while True:
            call = self.source.line.call(rng.choice(KINDS), rng.choice((1, 1, 2, 64)))
            try:
                self.take("thread", call.result(rng.choice((None, 0, 1e-4, 1e-3, 0.05))))
            except TimeoutError:
                continue
            except InvalidHandle:
                return

    def poller(self, rng: random.Random) -> None:
        while not self.over.is_set():
            with self.runtime.lock:
                entries = self.source.take(rng.choice((1, 7)))
            self.take("poller", entries)
            threading.Event().wait(rng.random() * 1e-3)

    def canceller(self, rng: random.Random) -> None:
        while True:
            call = self.source.line.call(1, 3)
            timer = threading.Timer(rng.random() * 1e-2, call.cancel)
            timer.start()
            try:
                self.take("canceller", call.result())
            except CancelledError:
                continue
            except InvalidHandle:
                return
            finally:
                timer.join()

    def sharers(self, rng: random.Random) -> None:
        """Two threads on one Pending: both see the result, which counts once."""
        while True:
            call = self.source.line.call(rng.choice(KINDS), 4)
            seen: list[list[int]] = []

            def second(call: object = call, seen: list[list[int]] = seen, timeout: float = rng.random() * 1e-2) -> None:
                try:
                    seen.append(call.result(timeout))  # type: ignore[attr-defined]
                except (TimeoutError, InvalidHandle):
                    return

            other = threading.Thread(target=second)
            other.start()
            try:
                entries = call.result()
            except InvalidHandle:
                return
            finally:
                other.join()
            assert seen in ([], [entries])
            self.take("sharers", entries)

    def asyncio_tasks(self, rng: random.Random) -> None:
        async def waiting(rng: random.Random) -> None:
            while True:
                call = self.source.line.call(rng.choice(KINDS), rng.choice((1, 64)))
                try:
                    self.take("asyncio", await asyncio.wait_for(call, rng.choice((None, 1e-4, 1e-3, 0.05))))
                except TimeoutError:
                    continue
                except InvalidHandle:
                    return

        async def cancelled(rng: random.Random) -> None:
            """A task is cancelled at any point; what it has taken by then it has booked."""
            while not self.over.is_set():
                task = asyncio.ensure_future(one_step(rng))
                await asyncio.sleep(rng.random() * 1e-2)
                task.cancel()
                await asyncio.wait([task])

        async def one_step(rng: random.Random) -> None:
            try:
                self.take("asyncio cancelled", await self.source.line.call(rng.choice(KINDS), 2))
            except InvalidHandle:
                return

        async def main() -> None:
            jobs = [waiting(random.Random(rng.random())) for _ in range(4)]
            jobs += [cancelled(random.Random(rng.random())) for _ in range(4)]
            await asyncio.gather(*jobs)

        asyncio.run(main())

    def trio_tasks(self, rng: random.Random) -> None:
        async def waiting(rng: random.Random) -> None:
            while True:
                with trio.move_on_after(rng.choice((1e-4, 1e-3, 0.05))):
                    call = self.source.line.call(rng.choice(KINDS), rng.choice((1, 64)))
                    try:
                        entries = await call
                    except InvalidHandle:
                        return
                    self.take("trio", entries)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(waiting, random.Random(rng.random()))

        trio.run(main)

    def dying_loops(self, rng: random.Random) -> None:
        """Loops that are closed under their sleepers, woken or not."""
        while not self.over.is_set():
            loop = asyncio.new_event_loop()
            awaiting = self.source.line.call(1, 2).__await__()

            async def start(awaiting: object = awaiting) -> bool:
                try:
                    next(awaiting)  # type: ignore[call-overload]
                except StopIteration as stop:
                    self.take("dying loops", stop.value)
                    return False
                except InvalidHandle:
                    return False
                return True

            sleeping = loop.run_until_complete(start())
            threading.Event().wait(rng.random() * 5e-3)
            loop.close()
            if sleeping:
                threading.Event().wait(rng.random() * 1e-2)
                awaiting.close()

    def callbacks(self, rng: random.Random) -> None:
        def again(pending: object) -> None:
            try:
                self.take("callback", pending.result())  # type: ignore[attr-defined]
            except InvalidHandle:
                return
            self.source.line.call(rng.choice(KINDS), 2).add_done_callback(again)

        self.source.line.call(1, 2).add_done_callback(again)


def watch_for_sleepers(ledger: Ledger) -> None:
    """No entry lies while somebody stands in line for it: look at the head of the queue again and again."""
    source = ledger.source
    head, since = -1, time.monotonic()
    while not ledger.over.is_set():
        with ledger.runtime.lock:
            waited_for = any(source.ready(call._kind) for call in source.line._line)
            now_head = source.entries[0] if source.entries and waited_for else -1
        now = time.monotonic()
        if now_head != head or head < 0:
            head, since = now_head, now
        elif now - since > LONGEST_NAP_S:
            ledger.errors.append(AssertionError(f"entry {head} lies for {now - since:.2f} s while somebody waits"))
            ledger.over.set()
        threading.Event().wait(0.002)


@pytest.mark.parametrize("watched", [True, False], ids=["all kinds of sleepers", "no second chance"])
def test_nothing_is_lost_doubled_or_slept_over(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with sleepers that never run after they were woken; once without these and without the watch that finds
    them, so that a turn that is not passed on for any other reason shows.
    """
    if not watched:
        monkeypatch.setattr(softndk.drivers.waiting, "OVERDUE_S", 1e6)
    with running("stress") as runtime:
        ledger = Ledger(runtime)
        consumers = [
            ledger.guarded(fn, number)
            for number, fn in enumerate(
                [ledger.thread] * 5
                + [ledger.poller, ledger.canceller, ledger.sharers, ledger.asyncio_tasks, ledger.asyncio_tasks]
                + [ledger.trio_tasks, ledger.callbacks, *([ledger.dying_loops] if watched else [])]
            )
        ]
        producers = [ledger.guarded(ledger.producer, 100 + number) for number in range(3)]
        watcher = ledger.guarded(lambda rng: watch_for_sleepers(ledger), 200)
        ledger.over.wait(SECONDS)
        until(lambda: ledger.over.is_set() or all(ledger.by[way] for way in WAYS))  # a busy machine takes longer
        finished = not ledger.over.is_set()
        ledger.over.set()
        for thread in [*producers, watcher]:
            thread.join(PATIENCE_S)
        until(lambda: not runtime_entries(ledger))
        ledger.source.fail(InvalidHandle("closed"))
        for thread in consumers:
            thread.join(PATIENCE_S)
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert ledger.errors == []
        assert finished
        assert [thread.name for thread in consumers if thread.is_alive()] == []
        assert ledger.source.waiting() == 0
    doubled = [entry for entry, count in ledger.got.items() if count != 1]
    lost = set(range(ledger.produced)) - set(ledger.got)
    print(f"{ledger.produced} entries: {dict(ledger.by)}")
    assert (doubled, lost) == ([], set())


def test_after_each_burst_silence_leaves_no_entry_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patient waiters, one burst amid cancelled, expiring and robbed ones, then silence: no later event can hide a
    turn that was not passed on.
    """
    monkeypatch.setattr(softndk.drivers.waiting, "OVERDUE_S", 1e6)
    rng = random.Random(SEED)
    with running("bursts") as runtime:
        ledger = Ledger(runtime)
        source = ledger.source

        def patient(rng: random.Random) -> None:
            while True:
                try:
                    ledger.take("patient", source.line.call(1, rng.choice((1, 2))).result())
                except InvalidHandle:
                    return

        def expiring(rng: random.Random) -> None:
            try:
                ledger.take("expiring", source.line.call(rng.choice(KINDS), 1).result(rng.random() * 2e-3))
            except TimeoutError:
                return

        def robber(rng: random.Random) -> None:
            threading.Event().wait(rng.random() * 1e-3)
            with runtime.lock:
                ledger.take("robber", source.take(rng.choice((1, 3))))

        def cancelled(rng: random.Random) -> None:
            call = source.line.call(rng.choice(KINDS), 1)
            threading.Timer(rng.random() * 2e-3, call.cancel).start()
            try:
                ledger.take("cancelled", call.result())
            except CancelledError:
                return

        def cancelled_task(rng: random.Random) -> None:
            async def step() -> None:
                ledger.take("cancelled task", await source.line.call(rng.choice(KINDS), 1))

            async def main() -> None:
                tasks = [asyncio.ensure_future(step()) for _ in range(3)]
                await asyncio.sleep(rng.random() * 2e-3)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

            asyncio.run(main())

        consumers = [ledger.guarded(patient, number) for number in range(3)]
        end = time.monotonic() + SECONDS
        rounds = 0
        while time.monotonic() < end and not ledger.over.is_set():
            rounds += 1
            disturbing = [
                ledger.guarded(fn, 1000 * rounds + number)
                for number, fn in enumerate(rng.choices((expiring, robber, cancelled, cancelled_task), k=3))
            ]
            threading.Event().wait(rng.random() * 1e-3)
            ledger.produce(rng.choice((1, 1, 2, 7)))
            for thread in disturbing:
                thread.join(PATIENCE_S)
            until(lambda: not source.entries)
            until(lambda: source.waiting() == len(consumers))
        source.fail(InvalidHandle("closed"))
        for thread in consumers:
            thread.join(PATIENCE_S)
        assert ledger.errors == []
    print(f"{rounds} rounds: {dict(ledger.by)}")
    assert ledger.got == Counter(range(ledger.produced))


def runtime_entries(ledger: Ledger) -> int:
    """What is left; odd entries that only an "even" waiter stands for are taken by hand at the end."""
    with ledger.runtime.lock:
        waited_for = any(ledger.source.ready(call._kind) for call in ledger.source.line._line)
        if ledger.source.entries and not waited_for:
            ledger.take("end", ledger.source.take(1 << 30))
        return len(ledger.source.entries)


class Echoed:
    """A connection to an echo server, shared by threads that wait for its octets in turn."""

    def __init__(self, runtime: Runtime, server: tuple[str, int]) -> None:
        self.end = End(runtime, ByteCore())
        self.source = Entries(runtime, lambda: [self.end.stream])
        self.end.stream._on_activity = self._active
        with runtime.lock:
            self.end.stream.connect(server)
        self.end.wait_for(lambda: "connected" in self.end.core.log)

    def _active(self) -> None:
        self.end._active()
        self.source.entries.extend(self.end.core.received)
        del self.end.core.received[:]
        self.source.line.notify()


def test_whoever_serves_a_connection_no_octet_waits_unread() -> None:
    """Threads that serve sockets themselves come, go, expire and poll; the engine's thread fills the gaps."""
    over = threading.Event()
    errors: list[BaseException] = []
    rounds: Counter[str] = Counter()

    def guarded(fn: Callable[[random.Random], None], number: int) -> threading.Thread:
        def run() -> None:
            try:
                fn(random.Random(SEED + number))
            except BaseException as error:
                errors.append(error)
                over.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    with running("near") as near, running("far") as far:
        accepted: list[End] = []
        listener = listening(far, lambda: ByteCore(echo=True), accepted)
        assert listener.local_address is not None
        shared = Echoed(near, listener.local_address)
        outstanding = threading.Semaphore(0)

        def ping_pong(rng: random.Random) -> None:
            assert listener.local_address is not None
            echoed = Echoed(near, listener.local_address)
            while not over.is_set():
                size = rng.choice((1, 1, 10, 100_000))
                echoed.end.send(bytes(size))
                left = size
                deadline = time.monotonic() + PATIENCE_S
                while left:
                    assert time.monotonic() < deadline, f"{left} octets of {size} never came"
                    if rng.random() < 0.2:
                        with near.lock:
                            near.engine.poll([echoed.end.stream])
                            left -= len(echoed.source.take(1 << 30))
                    else:
                        try:
                            call = echoed.source.line.call(1, 1 << 30)
                            left -= len(call.result(rng.choice((PATIENCE_S, PATIENCE_S, 0, 1e-4))))
                        except TimeoutError:
                            continue
                rounds["ping-pong"] += 1
                if rng.random() < 0.1:
                    threading.Event().wait(rng.random() * 0.012)  # around the length of a loan

        def sharing(rng: random.Random) -> None:
            """Several threads wait on one connection; each octet sent is taken by one of them."""
            while not over.is_set():
                shared.end.send(b"\1")
                outstanding.release()
                deadline = time.monotonic() + PATIENCE_S
                while True:
                    assert time.monotonic() < deadline, "an octet never came"
                    try:
                        got = shared.source.line.call(1, 1).result(rng.choice((PATIENCE_S, 1e-4)))
                        break
                    except TimeoutError:
                        continue
                assert got == [1]
                rounds["shared"] += 1

        def outsider(rng: random.Random) -> None:
            """A plain client of the echo side, whose engine serves everybody."""
            assert listener.local_address is not None
            with socket.create_connection(listener.local_address, PATIENCE_S) as client:
                while not over.is_set():
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                    rounds["outsider"] += 1

        threads = [guarded(ping_pong, number) for number in range(4)]
        threads += [guarded(sharing, 10 + number) for number in range(3)]
        threads += [guarded(outsider, 20)]
        over.wait(SECONDS)
        finished = not over.is_set()
        over.set()
        for thread in threads:
            thread.join(2 * PATIENCE_S)
        print(dict(rounds))
        assert errors == []
        assert finished
        assert not any(thread.is_alive() for thread in threads)
        assert set(rounds) == {"ping-pong", "shared", "outsider"}
