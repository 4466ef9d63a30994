"""Provokes the failures that docs/howto/errors.md explains; each gives the text that the page shows.

A failure is what raises, or what a request's result or the disconnect says. Real sockets and real objects throughout.
"""

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from softndk import (
    Adapter,
    Cq,
    IwarpConfig,
    MrFlag,
    OpFlag,
    Qp,
    Refused,
    Result,
    Sge,
    open_adapter,
)
from softndk.testing import End, kill, pair
from tests.deaf_socket import deafen
from tests.ndk.ends import PATIENCE_S
from tests.ndk.raw_peer import raw_client

WAIT_S: Final = 5.0
FAILURES: Final[dict[str, Callable[[], str]]] = {}


def failure(provoke: Callable[[], str]) -> Callable[[], str]:
    """Register under the function's name, with hyphens."""
    FAILURES[provoke.__name__.replace("_", "-")] = provoke
    return provoke


def raised(action: Callable[[], object]) -> str:
    """The text of what `action` raises."""
    try:
        action()
    except Exception as error:
        return str(error)
    raise AssertionError("nothing was raised")


def first_error(results: list[Result]) -> str:
    """What the oldest result says; it must have failed."""
    error = results[0].error
    assert error is not None, results
    return str(error)


def ending(end: End) -> str:
    """How the connection ended, as this end sees it."""
    error = end.connector.disconnected.result(WAIT_S).error
    assert error is not None
    return str(error)


def queues(adapter: Adapter) -> tuple[Cq, Qp]:
    """A queue pair that is not connected."""
    cq = adapter.create_cq(16)
    return cq, adapter.create_pd().create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)


def connecting(adapter: Adapter, port: int, host: str = "127.0.0.1") -> str:
    """The failure of a connect."""
    _, qp = queues(adapter)
    return raised(lambda: adapter.connect(qp, (host, port)).result(WAIT_S))


@contextmanager
def plain_server() -> Iterator[tuple[socket.socket, int]]:
    """A TCP server that knows nothing of iWARP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, server.getsockname()[1]


# ---- opening, listening


@failure
def not_an_address_of_this_machine() -> str:
    return raised(lambda: open_adapter("192.0.2.1"))


@failure
def address_in_use() -> str:
    with plain_server() as (_, port), open_adapter() as adapter:
        return raised(lambda: adapter.listen(("127.0.0.1", port)))


@failure
def address_held() -> str:
    with open_adapter() as adapter:
        listener = adapter.listen()
        return raised(lambda: adapter.listen(listener.local_address))


@failure
def address_of_another_adapter() -> str:
    with open_adapter() as adapter:
        return raised(lambda: adapter.listen(("127.0.0.2", 4711)))


# ---- connecting


@failure
def connection_refused() -> str:
    with plain_server() as (_, port):
        pass
    with open_adapter() as adapter:
        return connecting(adapter, port)


@failure
def rejected() -> str:
    with open_adapter() as active, open_adapter() as passive:
        _, qp = queues(active)
        listener = passive.listen()
        pending = active.connect(qp, listener.local_address)
        listener.next_request().result(WAIT_S).reject(b"no room")
        error = pending.exception(WAIT_S)
        assert isinstance(error, Refused)
        assert error.private_data == b"no room"
        return str(error)


@failure
def no_reply() -> str:
    with plain_server() as (_, port), open_adapter(config=IwarpConfig(connect_timeout_s=0.2)) as adapter:
        return connecting(adapter, port)


@failure
def not_iwarp() -> str:
    with plain_server() as (server, port), open_adapter() as adapter:
        _, qp = queues(adapter)
        pending = adapter.connect(qp, ("127.0.0.1", port))
        with server.accept()[0] as sock:
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return raised(lambda: pending.result(WAIT_S))


@failure
def closed_without_a_reply() -> str:
    with plain_server() as (server, port), open_adapter() as adapter:
        _, qp = queues(adapter)
        pending = adapter.connect(qp, ("127.0.0.1", port))
        with server.accept()[0] as sock:
            sock.recv(64)
        return raised(lambda: pending.result(WAIT_S))


@failure
def loopback_to_elsewhere() -> str:
    with open_adapter("127.0.0.1") as adapter:
        return connecting(adapter, 4711, "192.0.2.1")


@failure
def wrong_family() -> str:
    with open_adapter("127.0.0.1") as adapter:
        return connecting(adapter, 4711, "::1")


@failure
def host_name() -> str:
    with open_adapter() as adapter:
        return connecting(adapter, 4711, "localhost")


@failure
def qp_used_before() -> str:
    with pair() as (a, b):
        b.connector.close()
        a.connector.close().result(WAIT_S)
        return raised(lambda: a.adapter.connect(a.qp, ("127.0.0.1", 4711)))


# ---- posting


@failure
def not_connected() -> str:
    with open_adapter() as adapter:
        _, qp = queues(adapter)
        return raised(lambda: qp.send(b"x"))


@failure
def queue_full() -> str:
    with pair() as (a, _):
        for _ in range(64):
            a.qp.receive(a.mr[:])
        return raised(lambda: a.qp.receive(a.mr[:]))


@failure
def too_many_sges() -> str:
    with pair() as (a, _):
        return raised(lambda: a.qp.send([a.mr[0:1]] * 5))


@failure
def too_much_inline() -> str:
    with pair() as (a, _):
        return raised(lambda: a.qp.send(bytes(300)))


@failure
def invalidated_already() -> str:
    with pair() as (a, _):
        window = a.pd.create_mw()
        return raised(lambda: a.qp.invalidate(window))


@failure
def windows_bound() -> str:
    with pair() as (a, _):
        a.qp.bind(a.mr, a.pd.create_mw(), flags=OpFlag.ALLOW_REMOTE_READ)
        a.cq.wait(WAIT_S)[0].check()
        return raised(a.mr.deregister)


@failure
def closed_object() -> str:
    with pair() as (a, _):
        a.qp.close()
        return raised(lambda: a.qp.send(b"x"))


@failure
def over_the_limit() -> str:
    with pair() as (a, _):
        return raised(lambda: a.pd.create_qp(a.cq, a.cq, receive_queue_depth=100_000, initiator_queue_depth=1))


# ---- requests that fail


@failure
def outside_the_region() -> str:
    with pair() as (a, _):
        a.qp.send(Sge(a.mr.address + 8000, 1000, a.mr.local_token))
        return first_error(a.cq.wait(WAIT_S))


@failure
def deregistered() -> str:
    with pair() as (a, _):
        region = a.pd.register_mr(bytearray(64))
        sge = region[:]
        region.deregister().result(WAIT_S)
        a.qp.send(sge)
        return first_error(a.cq.wait(WAIT_S))


@failure
def other_protection_domain() -> str:
    with pair() as (a, _):
        region = a.adapter.create_pd().register_mr(bytearray(64))
        a.qp.send(region[:])
        return first_error(a.cq.wait(WAIT_S))


@failure
def read_only_receive() -> str:
    with pair() as (a, b):
        b.qp.receive(b.pd.register_mr(b"a constant")[:])
        a.qp.send(b"x")
        return first_error(b.cq.wait(WAIT_S))


@failure
def receive_too_small() -> str:
    with pair() as (a, b):
        b.qp.receive(b.mr[0:4])
        a.qp.send(b"12345678")
        return first_error(b.cq.wait(WAIT_S))


@failure
def read_refused() -> str:
    with pair() as (a, b):
        a.qp.read(a.mr[0:10], b.mr.address, b.mr.remote_token)
        return first_error(a.cq.wait(WAIT_S))


@failure
def read_outside() -> str:
    with pair(flags=MrFlag.ALLOW_LOCAL_WRITE | MrFlag.ALLOW_REMOTE_READ) as (a, b):
        a.qp.read(a.mr[0:10], b.mr.address + 8190, b.mr.remote_token)
        return first_error(a.cq.wait(WAIT_S))


@failure
def bad_invalidation() -> str:
    with pair() as (a, b):
        b.qp.receive(b.mr[0:64])
        a.qp.send_and_invalidate(b"x", b.mr.remote_token)
        return first_error(b.cq.wait(WAIT_S))


@failure
def cancelled() -> str:
    with pair() as (a, b):
        a.qp.receive(a.mr[:])
        kill(b.adapter, "reset")
        return first_error(a.cq.wait(WAIT_S))


# ---- connections that end


@failure
def no_receive_posted() -> str:
    with pair() as (a, b):
        a.qp.send(b"x")
        return ending(b)


@failure
def no_receive_at_the_peer() -> str:
    with pair() as (a, _):
        a.qp.send(b"x")
        return ending(a)


@failure
def write_without_right() -> str:
    with pair() as (a, b):
        a.qp.write(b"x", b.mr.address, b.mr.remote_token)
        return ending(b)


@failure
def atomic_without_right() -> str:
    with pair() as (a, b):
        a.qp.fetch_add(a.mr[0:8], b.mr.address, b.mr.remote_token, 1)
        return ending(b)


@failure
def peer_without_rfc_7306() -> str:
    with pair(peer_config=IwarpConfig(rfc7306=False)) as (a, b):
        a.qp.fetch_add(a.mr[0:8], b.mr.address, b.mr.remote_token, 0)
        return ending(a)


@failure
def write_outside() -> str:
    with pair(flags=MrFlag.ALLOW_REMOTE_WRITE) as (a, b):
        a.qp.write(bytes(20), b.mr.address + 8190, b.mr.remote_token)
        return ending(b)


@failure
def write_with_a_dead_token() -> str:
    with pair() as (a, b):
        a.qp.write(b"x", b.mr.address, b.pd.create_mw().remote_token)
        return ending(b)


@failure
def refused_by_the_peer() -> str:
    with pair() as (a, b):
        a.qp.write(b"x", b.mr.address, b.pd.create_mw().remote_token)
        return ending(a)


@failure
def connection_reset() -> str:
    with pair() as (a, b):
        kill(b.adapter, "reset")
        return ending(a)


@failure
def dead_peer() -> str:
    with raw_client(IwarpConfig(dead_peer_timeout_s=2)) as (peer, end):
        deafen(peer.sock)
        end.qp.send(b"is anybody there?")
        error = end.connector.disconnected.result(PATIENCE_S).error
        assert error is not None
        return str(error)


@failure
def bad_crc() -> str:
    return _from_a_raw_client("001a 4143 00000000 00000000 00000001 00000000 4142434445464748 deadbeef")


@failure
def unfinished_fpdu() -> str:
    return _from_a_raw_client("001a 4143", config=IwarpConfig(stall_timeout_s=0.2))


def _from_a_raw_client(octets: str, config: IwarpConfig | None = None) -> str:
    """What the passive side says of a client that sends `octets` (hexadecimal) behind a correct MPA Request."""
    with open_adapter(config=config) as adapter:
        _, qp = queues(adapter)
        qp.receive(adapter.create_pd().register_mr(bytearray(64))[:])
        listener = adapter.listen()
        with socket.create_connection(listener.local_address) as sock:
            sock.sendall(b"MPA ID Req Frame" + bytes.fromhex("40 01 0000"))
            connector = listener.next_request().result(WAIT_S)
            connector.accept(qp).result(WAIT_S)
            sock.sendall(bytes.fromhex(octets))
            error = connector.disconnected.result(WAIT_S).error
        assert error is not None
        return str(error)


@failure
def peer_does_not_disconnect() -> str:
    with pair(config=IwarpConfig(disconnect_timeout_s=0.2)) as (a, _):
        return raised(lambda: a.connector.disconnect().result(WAIT_S))


@failure
def queue_overrun() -> str:
    with pair(cq_depth=2) as (a, b):
        for _ in range(4):
            b.qp.receive(b.mr[0:16])
        for _ in range(4):
            a.qp.send(b"x", flags=OpFlag.SILENT_SUCCESS)
        b.connector.disconnected.result(WAIT_S)
        assert len(b.cq.get_results()) == 2
        return raised(lambda: b.cq.wait(WAIT_S))


@failure
def post_after_overrun() -> str:
    with pair(cq_depth=2) as (a, b):
        for _ in range(4):
            b.qp.receive(b.mr[0:16])
        for _ in range(4):
            a.qp.send(b"x", flags=OpFlag.SILENT_SUCCESS)
        b.connector.disconnected.result(WAIT_S)
        return raised(lambda: b.qp.send(b"x"))


# ---- waiting


@failure
def wait_expired() -> str:
    with open_adapter() as adapter:
        cq = adapter.create_cq(4)
        return raised(lambda: cq.wait(0.1))


@failure
def close_expired() -> str:
    with open_adapter() as adapter:
        pd, cq = adapter.create_pd(), adapter.create_cq(4)
        pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1).name = "client-7"
        return raised(lambda: pd.close().result(0.1))


@failure
def blocking_in_a_callback() -> str:
    with open_adapter() as adapter:
        cq = adapter.create_cq(4)
        told: list[str] = []
        finished = threading.Event()

        def on_done(_: object) -> None:
            told.append(raised(lambda: cq.wait(1)))
            finished.set()

        adapter.create_pd().close(on_done=on_done)
        assert finished.wait(WAIT_S)
        return told[0]


@failure
def blocking_in_an_event_loop() -> str:
    async def main() -> str:
        async with open_adapter() as adapter:
            cq = adapter.create_cq(4)
            return raised(lambda: cq.wait(1))

    return asyncio.run(main())


@failure
def coroutine_as_a_callback() -> str:
    async def on_notify(cq: object, status: object) -> None: ...

    with open_adapter() as adapter:
        return raised(lambda: adapter.create_cq(4, on_notify))


@failure
def adapter_forgotten() -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_adapter()
        gc.collect()
        (text,) = [str(item.message) for item in caught if item.category is ResourceWarning]
        return text
