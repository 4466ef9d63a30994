"""`softndk info`: what an adapter on an address of this machine offers, and the settings it would use."""

import json
from dataclasses import fields
from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple

import click
from rich.console import Console
from rich.table import Table

import softndk
from softndk import AdapterInfo, IwarpConfig, NdkVersion

__all__ = ["info"]

_VERSIONS: Final = {"2.1": NdkVersion(2, 1), "1.2": NdkVersion(1, 2)}
_PLAIN_WIDTH: Final = 100
_EXAMPLES: Final = """\b
Examples:
  softndk info
  softndk info --address ::1 --version 1.2
  softndk info --json
"""


class _Row(NamedTuple):
    unit: str
    meaning: str


ADAPTER_ROWS: Final = {
    "version": _Row("", "NDKPI version of the interface"),
    "vendor_id": _Row("", "IEEE OUI; 0: none assigned"),
    "device_id": _Row("", "chosen by the vendor"),
    "max_registration_size": _Row("octets", "one memory region"),
    "max_window_size": _Row("octets", "one memory window"),
    "frmr_page_count": _Row("pages", "one fast register, 4,096 octets each"),
    "max_initiator_request_sge": _Row("SGEs", "one send or write"),
    "max_receive_request_sge": _Row("SGEs", "one receive"),
    "max_read_request_sge": _Row("SGEs", "one read"),
    "max_transfer_length": _Row("octets", "one request"),
    "max_inline_data_size": _Row("octets", "one inline request"),
    "max_inbound_read_limit": _Row("reads", "in progress, asked by the peer"),
    "max_outbound_read_limit": _Row("reads", "in progress, asked by this side"),
    "max_receive_queue_depth": _Row("requests", "receive queue of a QP"),
    "max_initiator_queue_depth": _Row("requests", "initiator queue of a QP"),
    "max_srq_depth": _Row("requests", "shared receive queue; 0: not offered"),
    "max_cq_depth": _Row("results", "completion queue"),
    "large_request_threshold": _Row("octets", "from here on a request counts as large"),
    "max_caller_data": _Row("octets", "private data of connect"),
    "max_callee_data": _Row("octets", "private data of accept and reject"),
    "adapter_flags": _Row("", "capabilities, by name"),
    "rdma_technology": _Row("", "what is on the wire"),
    "extensions": _Row("", "verbs beyond NDKPI, by name; the peer may lack them"),
}
CONFIG_ROWS: Final = {
    "crc": _Row("", "ask for CRC; off only when both sides say so"),
    "markers": _Row("", "ask the peer for markers"),
    "mpa_revision": _Row("", "asked by the active side"),
    "fallback_revision_1": _Row("", "ask once more, with revision 1, a peer that closes without an answer"),
    "max_fpdu": _Row("octets", "largest ULPDU sent; none: what fits one TCP segment"),
    "peer_to_peer": _Row("", "offer a ready-to-receive indication"),
    "rfc7306": _Row("", "immediate data and atomics; no: be a peer without them"),
    "connect_timeout_s": _Row("s", "connect to the peer's MPA reply"),
    "accept_timeout_s": _Row("s", "TCP accept to the complete MPA request"),
    "ready_timeout_s": _Row("s", "MPA reply to the ready-to-receive indication"),
    "nudge_s": _Row("s", "silence of the passive side before a zero-length RDMA Write; 0: never"),
    "disconnect_timeout_s": _Row("s", "local disconnect to the peer's"),
    "terminate_drain_s": _Row("s", "input thrown away after a Terminate or a close"),
    "receive_wait_s": _Row("s", "grace for a message without a posted receive"),
    "stall_timeout_s": _Row("s", "peer leaves an FPDU unfinished"),
    "keepalive_s": _Row("s", "idle time before TCP probes; 0: never"),
    "dead_peer_timeout_s": _Row("s", "retransmissions and probes unanswered; 0: the system's limit"),
    "user_timeout_s": _Row("s", "sent data unacknowledged or unread; 0: the system's limit"),
    "max_pending_requests": _Row("requests", "unanswered, per listener"),
    "max_pending_requests_per_address": _Row("requests", "of these, from one source address"),
    "max_handshakes": _Row("connections", "without a complete MPA request, per listener"),
    "max_handshakes_per_address": _Row("connections", "of these, from one source address"),
    "send_buffer": _Row("octets", "made ready ahead of the socket, per connection"),
    "max_inbound_read_limit": _Row("reads", "of the peer in progress, per connection"),
    "max_outbound_read_limit": _Row("reads", "of this side in progress, per connection"),
    "max_connector_count": _Row("connectors", "open, per adapter; and so on for the other objects"),
    "max_listener_count": _Row("listeners", ""),
    "max_shared_endpoint_count": _Row("endpoints", ""),
    "max_pd_count": _Row("domains", ""),
    "max_cq_count": _Row("queues", ""),
    "max_qp_count": _Row("queue pairs", ""),
    "max_srq_count": _Row("queues", ""),
    "max_mr_count": _Row("regions", ""),
    "max_mw_count": _Row("windows", ""),
}

_UNKNOWN: Final = _Row("", "")
"""For a field that nobody has described yet: its value is shown all the same."""


@click.command(epilog=_EXAMPLES)
@click.option("--address", default="127.0.0.1", show_default=True, help="A numeric address of this machine.")
@click.option("--version", type=click.Choice(list(_VERSIONS)), default="2.1", show_default=True, help="NDKPI version.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(address: str, version: str, as_json: bool) -> None:
    """Show an adapter's limits (NDK_ADAPTER_INFO) and the settings of its transport."""
    config = IwarpConfig()
    with softndk.open_adapter(address, version=_VERSIONS[version], config=config) as adapter:
        found = adapter.query_info()
        datapath = adapter.datapath
    if as_json:
        click.echo(json.dumps(_as_object(address, datapath, found, config)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print(
        _table(f"Adapter {address}, data path {datapath}, softndk {softndk.__version__}", found, ADAPTER_ROWS)
    )
    console.print(_table("Settings of iWARP (IwarpConfig) and their defaults", config, CONFIG_ROWS))


def _table(title: str, values: AdapterInfo | IwarpConfig, rows: dict[str, _Row]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("meaning")
    for item in fields(values):
        row, value = rows.get(item.name, _UNKNOWN), getattr(values, item.name)
        meaning = "\n".join(str(flag.name) for flag in value) if isinstance(value, IntFlag) else row.meaning
        table.add_row(item.name, _shown(item.name, value), row.unit, meaning)
    return table


def _shown(name: str, value: Any) -> str:
    if isinstance(value, NdkVersion):
        return f"{value.major}.{value.minor}"
    if isinstance(value, IntFlag):
        return f"{value:#x}"
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if name.endswith("_id"):
        return f"{value:#08x}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _as_object(address: str, datapath: str, found: AdapterInfo, config: IwarpConfig) -> dict[str, Any]:
    """Numbers in the units that the table names; flags as a list of names."""
    adapter = {item.name: _plain(getattr(found, item.name)) for item in fields(found)}
    settings = {item.name: _plain(getattr(config, item.name)) for item in fields(config)}
    return {
        "address": address,
        "datapath": datapath,
        "softndk": softndk.__version__,
        "adapter": adapter,
        "config": settings,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, NdkVersion):
        return f"{value.major}.{value.minor}"
    if isinstance(value, IntFlag):
        return [flag.name for flag in value]
    return value.name if isinstance(value, IntEnum) else value
