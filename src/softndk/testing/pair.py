"""Two connected ends over real TCP on this machine."""

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from softndk.config import IwarpConfig
from softndk.flags import MrFlag
from softndk.ndk.adapter import Adapter, open_adapter
from softndk.ndk.connector import Connector
from softndk.ndk.cq import Cq
from softndk.ndk.mr import Mr
from softndk.ndk.pd import Pd
from softndk.ndk.qp import Qp

__all__ = ["End", "Pair", "kill", "pair"]

REGION_SIZE = 8192
WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """One end: `cq` serves both queues of `qp`; `mr` is 8 KiB with local write."""

    adapter: Adapter
    pd: Pd
    cq: Cq
    mr: Mr
    qp: Qp
    connector: Connector


class Pair(NamedTuple):
    """Active and passive end. Closing closes both adapters with everything on them."""

    a: End
    b: End

    def close(self) -> None:
        """Close both adapters and everything on them."""
        for end in self:
            end.adapter.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def pair(
    *,
    address: str = "127.0.0.1",
    config: IwarpConfig | None = None,
    peer_config: IwarpConfig | None = None,
    cq_depth: int = 256,
    queue_depth: int = 64,
    max_sge: int = 4,
    flags: int = MrFlag.ALLOW_LOCAL_WRITE,
    trace: str | os.PathLike[str] | None = None,
    **adapter_options: Any,
) -> Pair:
    """Open two adapters, connect a QP of each, and return the ends: the first is the active side.

    peer_config: the passive side's, where it is to differ. flags: MrFlag of both regions. trace: path of a capture, made
    by the active side. adapter_options: for both open_adapter calls.
    Raises: what opening or connecting raises; nothing stays open then.
    """
    active = open_adapter(address, config=config, trace=trace, **adapter_options)
    try:
        passive = open_adapter(address, config=config if peer_config is None else peer_config, **adapter_options)
    except BaseException:
        active.__exit__(None, None, None)
        raise
    try:
        parts = [_parts(adapter, cq_depth, queue_depth, max_sge, flags) for adapter in (active, passive)]
        listener = passive.listen()
        connecting = active.connect(parts[0][3], listener.local_address)
        incoming = listener.next_request().result(WAIT_S)
        accepting = incoming.accept(parts[1][3])
        outgoing = connecting.result(WAIT_S)
        accepting.result(WAIT_S)
        listener.close()
    except BaseException:
        active.__exit__(None, None, None)
        passive.__exit__(None, None, None)
        raise
    return Pair(End(active, *parts[0], outgoing), End(passive, *parts[1], incoming))


def _parts(adapter: Adapter, cq_depth: int, queue_depth: int, max_sge: int, flags: int) -> tuple[Pd, Cq, Mr, Qp]:
    pd = adapter.create_pd()
    cq = adapter.create_cq(cq_depth)
    mr = pd.register_mr(bytearray(REGION_SIZE), flags)
    qp = pd.create_qp(
        cq,
        cq,
        receive_queue_depth=queue_depth,
        initiator_queue_depth=queue_depth,
        max_receive_sge=max_sge,
        max_initiator_sge=max_sge,
    )
    return pd, cq, mr, qp


def kill(adapter: Adapter, how: Literal["reset", "silence"]) -> None:
    """Make the adapter's connections vanish as its peers see it; the adapter itself is only good for closing then.

    "reset": TCP resets, as when its process dies with data unread. "silence": the connections stay, but nothing is read
    or sent any more, as when its process hangs.
    """
    if how not in ("reset", "silence"):
        raise ValueError(f"kill: how={how!r}; 'reset' or 'silence'")
    adapter._kill(silently=how == "silence")
