"""TCP streams of an adapter's connections, traced if the adapter is; the trace ends with the last of them."""

from collections.abc import Callable

from softndk.drivers.sockets import TcpOptions
from softndk.drivers.tcp import TcpStream
from softndk.iwarp.connection import Connection
from softndk.ndk.context import AdapterContext

__all__ = ["make_stream"]


def make_stream(
    context: AdapterContext, core: Connection, on_activity: Callable[[], None], *, active: bool
) -> TcpStream:
    """A TCP stream under `core`, traced if the adapter is."""
    config = context.config
    options = TcpOptions(
        keepalive_s=config.keepalive_s,
        user_timeout_s=config.user_timeout_s,
        dead_peer_timeout_s=config.dead_peer_timeout_s,
    )
    engine = context.runtime.engine
    capture = context.capture
    if capture is None:
        return TcpStream(engine, core, on_activity, options=options)

    ended = False

    def traced_activity() -> None:
        nonlocal ended
        on_activity()
        if stream.closed and not ended:
            ended = True
            context.traced_streams -= 1
            context.end_capture()

    stream = TcpStream(
        engine,
        core,
        traced_activity,
        tap=lambda local, peer: capture.stream(local, peer, active=active, name=core.name),
        options=options,
    )
    context.traced_streams += 1
    return stream
