"""Attacks from around the program: fork, the interpreter's exit, signals, a machine without descriptors or threads."""

import os
import textwrap

import pytest

from softndk import open_adapter
from tests.attack.attack_tools import PATIENCE_S, furnish, in_thread, run_program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="fork and signals are POSIX's")


def program(body: str, *options: str, status: int = 0) -> tuple[str, str]:
    """Run a program that imports softndk; returns what it printed on stdout and stderr."""
    prelude = "import os, sys, threading, signal, time, socket\nimport softndk\nfrom softndk.testing import pair\n"
    # Python 3.12 and newer warn of a fork beside threads. The last -W counts.
    quiet = ("-W", "ignore:This process (pid=:DeprecationWarning")
    done = run_program(prelude + textwrap.dedent(body), *options, *quiet)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


class TestFork:
    """Every program forks with a time limit of its own in the child: a hang shows as SIGALRM."""

    FORK = """
    def forked(child):
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            signal.alarm(5)
            status = 1
            try:
                child()
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, status
    """

    def child_does(self, setup: str, child: str, after: str = "") -> tuple[str, str]:
        parts = [self.FORK, setup, "def child():\n" + textwrap.indent(textwrap.dedent(child), "    "), "forked(child)"]
        return program("\n".join(textwrap.dedent(part) for part in (*parts, after)))

    EVERY_CALL = """
        calls = [
            a.qp.flush, lambda: a.qp.send(b""), lambda: a.qp.receive([]), lambda: a.cq.get_results(), a.cq.arm,
            lambda: a.cq.wait(1), a.adapter.create_pd, a.adapter.query_statistics, a.pd.create_mw,
            a.mr.deregister, a.connector.disconnect, listener.next_request, lambda: listener.next_request().result(1),
        ]
        for call in calls:
            try:
                call()
            except softndk.InvalidHandle:
                continue
            raise AssertionError(call)
    """

    def test_every_call_in_the_child_is_an_invalid_handle(self) -> None:
        self.child_does("a, b = pair(); listener = b.adapter.listen()", self.EVERY_CALL)

    def test_also_when_another_thread_held_the_lock_at_the_fork(self) -> None:
        setup = """
        a, b = pair()
        listener = b.adapter.listen()
        stop = False
        def busy():
            while not stop:
                with a.adapter._lock:
                    for _ in range(2000):
                        pass
                with b.adapter._lock:
                    for _ in range(2000):
                        pass
        thread = threading.Thread(target=busy)
        thread.start()
        """
        again = "for _ in range(5):\n    forked(child)\nstop = True\nthread.join()"
        self.child_does(setup, self.EVERY_CALL, again)

    def test_leaving_a_with_block_and_closing_in_the_child_does_nothing_to_the_parent(self) -> None:
        after = """
        b.qp.receive(b.mr[:])
        a.qp.send(b"still here")
        assert b.cq.wait(10)[0].bytes_transferred == 10
        ends.close()
        """
        child = """
        for item in (a.qp, a.connector, a.adapter):
            assert item.close().result(1) is None
            assert item.closed
        ends.close()
        """
        _, err = self.child_does("ends = a, b = pair()", child, after)
        assert err == ""

    def test_with_a_callback_under_way_the_child_leaves_its_block_all_the_same(self) -> None:
        setup = """
        ends = a, b = pair()
        begun, end = threading.Event(), threading.Event()
        a.adapter.create_pd().close(on_done=lambda _: (begun.set(), end.wait(10)))
        begun.wait(10)
        """
        _, err = self.child_does(setup, "ends.close()", "end.set()\nends.close()")
        assert err == ""

    def test_the_child_may_open_adapters_of_its_own(self) -> None:
        child = """
        with pair() as (c, d):
            d.qp.receive(d.mr[:])
            c.qp.send(b"hi")
            assert d.cq.wait(10)[0].bytes_transferred == 2
        """
        self.child_does("ends = pair()", child, "ends.close()")

    def test_a_child_that_ends_normally_says_nothing(self) -> None:
        body = """
        ends = pair()
        pid = os.fork()
        if not pid:
            signal.alarm(5)
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        ends.b.qp.receive(ends.b.mr[:])
        ends.a.qp.send(b"x")
        assert ends.b.cq.wait(10)
        ends.close()
        """
        assert program(body, "-W", "default") == ("", "")

    def test_a_lock_is_not_left_held_in_the_parent(self) -> None:
        with open_adapter() as adapter:
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
            assert in_thread(lambda: adapter.open_objects).result(PATIENCE_S) == ()


class TestExit:
    """The interpreter ends while things are open: no hang, no traceback, and the peer hears of it."""

    def test_with_everything_open(self) -> None:
        body = """
        ends = a, b = pair()
        listener = b.adapter.listen()
        a.cq.arm(); a.cq.fileno()
        pending = listener.next_request()
        a.adapter.connect(a.pd.create_qp(a.cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1),
                          listener.local_address)
        for end in ends:
            end.qp.receive(end.mr[:])
        """
        assert program(body) == ("", "")

    def test_with_a_thread_that_waits(self) -> None:
        body = """
        ends = a, b = pair()
        begun = threading.Event()
        def wait():
            begun.set()
            a.cq.wait()
        threading.Thread(target=wait, daemon=True).start()
        begun.wait()
        """
        assert program(body) == ("", "")

    def test_with_a_callback_that_runs(self) -> None:
        body = """
        adapter = softndk.open_adapter()
        begun = threading.Event()
        adapter.create_pd().close(on_done=lambda _: (begun.set(), time.sleep(60)))
        begun.wait()
        """
        assert program(body) == ("", "")

    def test_a_forgotten_adapter_is_warned_of_at_the_exit(self) -> None:
        out, err = program("ends = pair()", "-X", "dev")
        assert out == ""
        assert "Traceback" not in err

    @pytest.mark.parametrize("ending", ["closed", "open"])
    def test_what_was_sent_and_the_end_reach_the_peer(self, ending: str) -> None:
        """The completed send arrives, then a graceful end: FIN after all octets."""
        with open_adapter() as adapter:
            host = furnish(adapter)
            listener = adapter.listen()
            qp = host.qp()
            qp.receive(host.mr[0:8192])
            body = f"""
            adapter = softndk.open_adapter()
            pd, cq = adapter.create_pd(), adapter.create_cq(8)
            qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=4)
            mr = pd.register_mr(bytearray(b"x" * 8000))
            adapter.connect(qp, {listener.local_address!r}).result(10)
            qp.send(mr[:])
            cq.wait(10)
            if {ending == "closed"}:
                adapter.__exit__(None, None, None)
            """
            running = in_thread(lambda: program(body))
            connector = listener.next_request().result(3 * PATIENCE_S)
            connector.accept(qp).result(PATIENCE_S)
            assert host.cq.wait(PATIENCE_S)[0].bytes_transferred == 8000
            assert connector.disconnected.result(PATIENCE_S).graceful
            assert running.result(PATIENCE_S) == ("", "")

    def test_a_terminate_still_goes_out(self) -> None:
        """A flush aborts with a Terminate; the adapter is closed and the interpreter ends at once."""
        with open_adapter() as adapter:
            host = furnish(adapter)
            listener = adapter.listen()
            body = f"""
            with softndk.open_adapter() as adapter:
                pd, cq = adapter.create_pd(), adapter.create_cq(8)
                qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=4)
                adapter.connect(qp, {listener.local_address!r}).result(10)
                qp.flush()
            """
            running = in_thread(lambda: program(body))
            connector = listener.next_request().result(3 * PATIENCE_S)
            connector.accept(host.qp()).result(PATIENCE_S)
            error = connector.disconnected.result(PATIENCE_S).error
            assert error is not None
            assert error.fault is not None
            assert error.fault.received
            assert running.result(PATIENCE_S) == ("", "")

    def test_closing_while_the_interpreter_ends(self) -> None:
        body = """
        import atexit
        ends = pair()
        atexit.register(ends.close)
        """
        assert program(body) == ("", "")


class TestForgotten:
    def test_an_adapter_is_collected_whole_and_its_threads_and_descriptors_go(self) -> None:
        body = """
        import gc, warnings, weakref
        def descriptors():
            return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        before = descriptors()
        def forget():
            ends = a, b = pair()
            a.cq.arm()
            a.cq.fileno()
            b.adapter.listen()
            b.adapter.create_listener(lambda c: None).listen(("127.0.0.1", 0))
            a.adapter.create_pd().close(on_done=lambda _: None)
            return [weakref.ref(part) for end in ends for part in (end.adapter, end.qp, end.cq, end.connector)]
        until = time.monotonic() + 10
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = forget()
            while any(part() for part in parts) or threading.active_count() > 1 or descriptors() > before:
                assert time.monotonic() < until, (parts, threading.enumerate(), before, descriptors())
                gc.collect()
        said = [str(item.message) for item in caught]
        assert len([text for text in said if text.startswith("<Adapter") and "never closed" in text]) == 2, said
        assert not any("socket" in text for text in said), said
        """
        assert program(body) == ("", "")

    def test_one_whose_child_object_is_held_is_not_forgotten(self) -> None:
        body = """
        import gc
        def keep():
            ends = a, b = pair()
            b.qp.receive(b.mr[:])
            return a.qp, b.cq
        qp, cq = keep()
        gc.collect()
        qp.send(b"alive")
        assert cq.wait(10)[0].bytes_transferred == 5
        """
        assert program(body, "-W", "ignore::ResourceWarning") == ("", "")


class TestSignals:
    def test_ctrl_c_in_a_wait_leaves_all_usable(self) -> None:
        body = """
        with pair() as (a, b):
            for wait in (a.cq.wait, b.adapter.listen().next_request().result, a.connector.disconnected.result,
                         a.cq.next_results().result):
                for _ in range(5):
                    interrupted = threading.Event()
                    def interrupt():
                        while not (a.cq._line or any(p._waiters for p in pendings)):
                            pass
                        while not interrupted.is_set():  # one that comes right before the system call is not seen in it
                            os.kill(os.getpid(), signal.SIGINT)
                            interrupted.wait(0.2)
                    pendings = [p for p in (getattr(wait, "__self__", None),) if isinstance(p, softndk.Pending)]
                    thread = threading.Thread(target=interrupt)
                    thread.start()
                    try:
                        wait(20)
                        raise AssertionError("not interrupted")
                    except KeyboardInterrupt:
                        interrupted.set()
                    thread.join()
            b.qp.receive(b.mr[:])
            a.qp.send(b"usable")
            assert b.cq.wait(10)[0].bytes_transferred == 6
            assert a.cq.wait(10)
        """
        assert program(body) == ("", "")

    def test_exceptions_out_of_signal_handlers_at_any_point_cost_connections_at_most(self) -> None:
        """Whatever they hit, frames half made and queues half changed included: no hang, and new connections work."""
        body = """
        import random
        random.seed(4711)
        class Interrupted(BaseException):
            pass
        armed = False
        def handler(*_):
            global armed
            if armed:
                armed = False
                raise Interrupted
        signal.signal(signal.SIGALRM, handler)
        a, b = softndk.open_adapter(), softndk.open_adapter()
        a_pd, b_pd, listener = a.create_pd(), b.create_pd(), b.listen()
        mr = b_pd.register_mr(bytearray(64))
        def connection():
            a_cq, b_cq = a.create_cq(64), b.create_cq(64)
            a_qp, b_qp = (pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)
                          for pd, cq in ((a_pd, a_cq), (b_pd, b_cq)))
            connecting = a.connect(a_qp, listener.local_address)
            incoming = listener.next_request().result(10)
            incoming.accept(b_qp)
            return a_qp, a_cq, b_qp, b_cq, connecting.result(10), incoming
        def find(cq, context):
            while True:
                for result in cq.wait(10):
                    result.check()
                    if result.request_context == context:
                        return
        def check(tag):
            try:
                while True:
                    b_qp.receive(mr[:], context=("receive", tag))
            except BlockingIOError:
                pass
            for number in range(4):
                a_qp.send(b"check", context=(number, tag))
                find(a_cq, (number, tag))
        def busy():  # a function: Python 3.13 leaves the end of a loop outside the try around it
            while armed:
                b_qp.receive(mr[:])
                a_qp.send(b"x")
                a_cq.wait(10)
                b_cq.wait(10)
        end = a_qp, a_cq, b_qp, b_cq, *connectors = connection()
        interrupts, begun = 0, time.monotonic()
        while time.monotonic() < begun + (1.0 if interrupts > 20 else 60.0):  # a busy machine may need longer
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3))
                busy()
            except Interrupted:
                interrupts += 1
            except softndk.NdkError:
                pass
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                check(interrupts)
            except softndk.NdkError:
                for item in (*connectors, a_qp, b_qp):
                    item.__exit__(None, None, None)
                a_qp, a_cq, b_qp, b_cq, *connectors = connection()
                check("new")
        assert interrupts > 20, interrupts
        for item in (a, b):
            item.__exit__(None, None, None)
        """
        program(body)

    def test_a_handler_that_uses_the_adapter_while_its_thread_waits(self) -> None:
        body = """
        with pair() as (a, b):
            def handler(*_):
                a.qp.receive(a.mr[:])
                b.qp.send(b"from the handler")
            signal.signal(signal.SIGUSR1, handler)
            def kick():
                while not a.cq._line:
                    pass
                os.kill(os.getpid(), signal.SIGUSR1)
            threading.Thread(target=kick).start()
            assert a.cq.wait(10)[0].bytes_transferred == 16
        """
        assert program(body) == ("", "")


class TestExhaustion:
    def test_no_descriptors_left(self) -> None:
        """Whatever needs one fails with INSUFFICIENT_RESOURCES; what does not goes on."""
        body = """
        import resource, errno
        with pair() as (a, b):
            listener = b.adapter.listen()
            qp = a.pd.create_qp(a.cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1)
            hoard = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            try:
                while True:
                    hoard.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            b.qp.receive(b.mr[:])
            a.qp.send(b"goes on")
            assert b.cq.wait(10)[0].bytes_transferred == 7
            for call in (a.cq.fileno, listener.fileno, softndk.open_adapter,
                         lambda: a.adapter.listen(),
                         lambda: a.adapter.connect(qp, listener.local_address).result(10)):
                try:
                    call()
                except softndk.InsufficientResources as error:
                    assert error.errno == errno.ENOBUFS, error.errno
                else:
                    raise AssertionError(call)
            for fd in hoard:
                os.close(fd)
            connecting = a.adapter.connect(qp, listener.local_address)
            listener.next_request().result(10).reject()
            try:
                connecting.result(10)
            except softndk.Refused:
                pass
        """
        assert program(body) == ("", "")
