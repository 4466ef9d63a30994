"""Makes the tables of docs/reference/limits.md: every setting, every limit of the adapter, every fixed limit.

Names, defaults and meanings come from the code; the reasons stand here. A limit without a reason is an error.
Run: ``python -m scripts.docs.limits_reference`` from the project's root; ``--check`` only compares.
"""

import importlib
import inspect
import re
import sys
from dataclasses import fields

from scripts.docs.generated import ROOT, Page, table
from softndk import AdapterInfo, IwarpConfig, NdkVersion
from softndk.ndk.context import adapter_info

SETTING_REASONS = {
    "crc": "RFC 5044 wants it on by default; both ends have to be told to go without",
    "markers": "they help only hardware that places data out of order; this receiver reads in order",
    "mpa_revision": "revision 2 negotiates read limits; revision 1 is for old peers",
    "fallback_revision_1": "a peer that closes has most likely another reason, and would see two connections",
    "max_fpdu": "one FPDU in one TCP segment lets a hardware peer place it without reassembly",
    "peer_to_peer": "the program need not know which side speaks first",
    "rfc7306": "off lets a program be tried against a peer that has neither immediate data nor atomics, as Linux's siw",
    "connect_timeout_s": "long enough for a busy peer, short enough for a person",
    "accept_timeout_s": "whoever opens TCP and says nothing holds a descriptor",
    "nudge_s": "far longer than an answer takes in a local network, far shorter than a person's patience",
    "ready_timeout_s": "longer than the other start-up limits: the peer's program takes this step, not its NIC",
    "disconnect_timeout_s": "the peer's program must answer; NDKPI lets the provider choose the limit",
    "terminate_drain_s": "a peer that never closes must not hold the socket for ever",
    "receive_wait_s": "the transport calls it an error; hiding it would let a bug pass a test",
    "dead_peer_timeout_s": "a peer without power never acknowledges, and Linux alone gives up after about 15 minutes; TCP"
    " sends again at growing intervals, so an outage of the network up to about half of this always passes unnoticed",
    "user_timeout_s": "it would end living peers too; where dead_peer_timeout_s does nothing it is the only limit",
    "stall_timeout_s": "a peer that stops inside an FPDU holds memory and a descriptor",
    "keepalive_s": "a dead and idle peer sends nothing, so only TCP's probes find it",
    "max_pending_requests": "requests that nobody accepts hold memory and a descriptor each",
    "max_pending_requests_per_address": "half of max_pending_requests, as max_handshakes_per_address",
    "max_handshakes": "bounds what clients that connect and stay silent can hold",
    "max_handshakes_per_address": "half of max_handshakes: one address that floods leaves places for the others",
    "max_inbound_read_limit": "each read of the peer that waits for its answer costs a small record; the adapter's"
    " whole is this times max_connector_count",
    "max_outbound_read_limit": "as max_inbound_read_limit",
    "max_connector_count": "each holds a descriptor; beyond the machine's limit of descriptors nothing is accepted anyway",
    "max_listener_count": "each holds a port",
    "max_shared_endpoint_count": "each holds a port",
    "max_pd_count": "one for each connection is a usual way",
    "max_cq_count": "as max_pd_count",
    "max_qp_count": "one for each connector",
    "max_srq_count": "as max_pd_count",
    "max_mr_count": "16 for each connector; with that many of both kinds one guess of a token in 8,192 is right",
    "max_mw_count": "as max_mr_count",
    "send_buffer": "keeps the socket busy between two looks at it; a peer that does not read blocks only itself",
}

INFO_REASONS = {
    "version": "what open_adapter agreed on",
    "vendor_id": "the project has no IEEE number",
    "device_id": 'the letters "ndk"',
    "max_registration_size": "1 TiB; the machine's memory ends sooner",
    "max_window_size": "a window may cover any region",
    "frmr_page_count": "2 MiB of 4 KiB pages",
    "max_initiator_request_sge": "finite, and enough to gather a message from many places",
    "max_receive_request_sge": "as max_initiator_request_sge",
    "max_read_request_sge": "as max_initiator_request_sge; each SGE of a read sink may lie in another region",
    "max_transfer_length": "1 GiB, a quarter of what the wire can number",
    "max_inline_data_size": "inline data is copied by the post",
    "max_inbound_read_limit": "a setting, above",
    "max_outbound_read_limit": "a setting, above",
    "max_receive_queue_depth": "bounds the objects that one queue holds",
    "max_initiator_queue_depth": "as max_receive_queue_depth",
    "max_srq_depth": "as max_receive_queue_depth",
    "max_cq_depth": "room for 32 full queue pairs",
    "large_request_threshold": "a hint only; nothing here depends on it",
    "max_caller_data": "MPA's 512 octets, less 4 for the read limits of revision 2; 512 with revision 1",
    "max_callee_data": "as max_caller_data",
    "adapter_flags": "see the supported features",
    "rdma_technology": "the only transport so far",
    "extensions": "RFC 7306; all or, with rfc7306=False, nothing",
}

FIXED = (  # constant, package where there are several of the name, unit, what it bounds, why
    ("MAX_PRIVATE_DATA", "", "octets", "private data of a start-up frame", "RFC 5044"),
    ("MAX_ULPDU", "", "octets", "one FPDU of the peer, held until it is whole", "its 16 bits"),
    (
        "EARLY_LIMIT",
        "",
        "octets",
        "kept for an active side that has not completed its connect; then TCP holds the peer back",
        "one FPDU and more must fit",
    ),
    ("READ_FIRST", "", "octets", "one read of a peer that nobody knows yet", "many small FPDUs would take long"),
    ("READ_MOST", "", "octets", "one read of a peer that sends large FPDUs", "fairness between connections"),
    (
        "FRAMES_PER_READ",
        "",
        "FPDUs",
        "about what one read may bring; reads become smaller where it is more",
        "as READ_MOST",
    ),
    ("SEND_BUDGET", "", "octets", "sent by one call before others have their turn", "fairness between connections"),
    (
        "SEND_BUFFERS",
        "",
        "FPDUs",
        "about what it sends at most",
        "a peer may ask for tiny segments; small FPDUs take as long",
    ),
    ("ACCEPT_BATCH", "", "connections", "accepted before others have their turn", "fairness between descriptors"),
    ("BACKLOG", "", "connections", "that TCP has made and nobody has accepted yet", "a burst of clients should fit"),
    ("ACCEPT_PAUSE_S", "", "seconds", "that accepting rests when descriptors or memory have run out", "it would spin"),
    (
        "RESTING_INDICES",
        "",
        "tokens",
        "freed token indices that are not used again yet",
        "a stale token stays dead for a long time",
    ),
    (
        "LOG_LINES",
        "",
        "lines",
        "about incidents with peers, of one adapter in LOG_PERIOD_S",
        "a flood of faults is no flood of lines",
    ),
    ("LOG_PERIOD_S", "", "seconds", "after which LOG_LINES more are written", "as LOG_LINES"),
    ("INCIDENTS_KEPT", "", "lines", "about the last incidents, kept for `softndk status`", "as LOG_LINES"),
    ("DYNAMIC_PORTS", "", "ports", "where a port is found when 0 is asked", "R-PORT-1"),
    (
        "EXIT_WAIT_S",
        "ndk",
        "seconds",
        "that leaving a `with` block waits for callbacks and placements, then a ResourceWarning",
        "a callback that hangs must not hang the program",
    ),
    (
        "EXIT_WAIT_S",
        "drivers",
        "seconds",
        "that the interpreter's exit waits for what closed connections still have to send",
        "a peer that does not read must not hang the program",
    ),
)


def parts() -> dict[str, str]:
    """The three tables."""
    return {"settings": _settings(), "adapter": _adapter(), "fixed": _fixed()}


def _settings() -> str:
    default = IwarpConfig()
    meanings = _described(IwarpConfig)
    rows = []
    for item in fields(IwarpConfig):
        value = getattr(default, item.name)
        rows.append(
            (f"`{item.name}`", _value(value), _unit(item.name), meanings[item.name], SETTING_REASONS[item.name])
        )
    return table(("Setting", "Default", "Unit", "Meaning", "Why"), rows)


def _adapter() -> str:
    info = adapter_info(NdkVersion(2, 1), IwarpConfig())
    rows = []
    for item in fields(AdapterInfo):
        value = getattr(info, item.name)
        rows.append((f"`{item.name}`", _value(value), _unit(item.name), INFO_REASONS[item.name]))
    return table(("Field of AdapterInfo", "Value", "Unit", "Why"), rows)


def _fixed() -> str:
    rows = []
    for name, package, unit, meaning, why in FIXED:
        module, value = _constant(name, package)
        shown = f"{value[0]} to {value[-1]}" if isinstance(value, range) else _value(value)
        rows.append((f"`{module}.{name}`", shown, unit, meaning, why))
    return table(("Constant", "Value", "Unit", "What it bounds", "Why"), rows)


def _constant(name: str, package: str) -> tuple[str, object]:
    """The module of softndk, under `package`, that defines the constant, and its value."""
    source = ROOT / "src"
    for file in sorted((source / "softndk" / package).rglob("*.py")):
        if re.search(rf"^{name}: Final\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            module = ".".join(file.relative_to(source).with_suffix("").parts)
            return module, getattr(importlib.import_module(module), name)
    raise ValueError(f"no module under softndk/{package} defines {name}")


def _described(cls: type) -> dict[str, str]:
    """The lines "name: meaning." of a class's docstring; a line that is indented goes on with the one before."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.getdoc(cls).splitlines() if cls.__doc__ else ():  # type: ignore[union-attr]
        begin = re.match(r"(\w+): (.+)", line)
        if begin:
            name = begin[1]
            found[name] = begin[2]
        elif name and line.startswith(" "):
            found[name] += " " + line.strip()
    return {key: text.rstrip(".") for key, text in found.items()}


def _value(value: object) -> str:
    if isinstance(value, NdkVersion):
        return f"{value.major}.{value.minor}"
    if hasattr(value, "name") and hasattr(value, "value"):
        return ", ".join(str(value.name).split("|"))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10000:
        return f"{value:,}"
    return str(value)


_UNITS = (
    (r"_s$", "seconds"),
    (r"size$|_length$|_data$|threshold$|^max_fpdu$|^send_buffer$", "octets"),
    (r"_sge$", "SGEs"),
    (r"_depth$", "entries"),
    (r"_limit$", "reads"),
    (r"_page_count$", "pages"),
    (r"^max_pending_requests", "requests"),
    (r"^max_handshakes", "connections"),
    (r"_count$", "objects"),
)


def _unit(name: str) -> str:
    return next((unit for pattern, unit in _UNITS if re.search(pattern, name)), "")


PAGE = Page("docs/reference/limits.md", "limits_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
