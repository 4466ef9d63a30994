"""Makes the tables of docs/reference/errors.md: exception classes, the wire's error table, what a Terminate means.

Classes, statuses, codes and rules come from the code; the sentence on each cause stands here. A cause without one is an
error. Run: ``python -m scripts.docs.error_reference`` from the project's root; ``--check`` only compares.
"""

import errno
import sys

import softndk
from scripts.docs.generated import Page, first_sentence, table
from softndk.errors import error_for
from softndk.iwarp.faults import Cause, status_for_received
from softndk.wire.terminate import CODES, Terminate, describe

CAUSES = {
    Cause.BAD_CRC: "the CRC of an FPDU is wrong; nothing of it is used",
    Cause.MARKER_MISMATCH: "a marker points to another place than where its FPDU began",
    Cause.SHORT_HEADER: "a segment is shorter than its header",
    Cause.TAGGED_VERSION: "a tagged segment has a DDP version other than 1",
    Cause.UNTAGGED_VERSION: "an untagged segment has a DDP version other than 1",
    Cause.RDMAP_VERSION: "the RDMAP version is not 1",
    Cause.UNKNOWN_OPCODE: "the opcode does not exist, or is one of RFC 7306 and IwarpConfig.rfc7306 is off",
    Cause.OPCODE_ON_WRONG_QUEUE: "the opcode does not go with a tagged segment, or not with this queue number",
    Cause.INVALID_QN: "the queue number is not 0 to 3 (0 to 2 without RFC 7306)",
    Cause.INVALID_MSN: "the message sequence number is not the next one",
    Cause.NO_RECEIVE: "a message came and no receive was posted",
    Cause.TOO_MANY_READS: "more reads and atomics at once than the inbound read limit",
    Cause.INVALID_MO: "the message offset does not continue the message",
    Cause.RECEIVE_TOO_SMALL: "the message is longer than the posted receive",
    Cause.READ_REQUEST_TOO_LONG: "a Read Request is longer than its 28 octets, or not one segment",
    Cause.READ_REQUEST_TOO_SHORT: "a Read Request is shorter than its 28 octets",
    Cause.WRITE_INVALID_STAG: "RDMA Write: the token is unknown, has been invalidated, or is local only",
    Cause.WRITE_NOT_ASSOCIATED: "RDMA Write: the token belongs to another protection domain or queue pair",
    Cause.WRITE_NO_RIGHT: "RDMA Write: the token gives no remote write",
    Cause.WRITE_WRAP: "RDMA Write: address and length pass 2^64",
    Cause.WRITE_BOUNDS: "RDMA Write: outside the registered or bound range",
    Cause.READ_INVALID_STAG: "Read Request: the token is unknown, has been invalidated, or is local only",
    Cause.READ_NOT_ASSOCIATED: "Read Request: the token belongs to another protection domain or queue pair",
    Cause.READ_NO_RIGHT: "Read Request: the token gives no remote read",
    Cause.READ_WRAP: "Read Request: address and length pass 2^64",
    Cause.READ_BOUNDS: "Read Request: outside the registered or bound range",
    Cause.READ_SOURCE_GONE: "the source of a read became invalid while its answer was being sent",
    Cause.UNEXPECTED_RESPONSE: "a Read Response came and no read was outstanding",
    Cause.RESPONSE_STAG: "a Read Response names another sink than the oldest read's",
    Cause.RESPONSE_BOUNDS: "a Read Response has a gap, or another length than was asked for",
    Cause.CANNOT_INVALIDATE: "Send with Invalidate: the token is not valid, or a peer may not invalidate its kind",
    Cause.INVALIDATE_NOT_ASSOCIATED: "Send with Invalidate: token of another protection domain or queue pair",
    Cause.CHANGED_OPCODE: "the opcode changed inside a message",
    Cause.IMMEDIATE_LENGTH: "Immediate Data is not 8 octets in one segment",
    Cause.ATOMIC_TOO_LONG: "an Atomic Request is longer than its 52 octets (a Response: 12), or not one segment",
    Cause.ATOMIC_TOO_SHORT: "an Atomic Request or Response is too short",
    Cause.ATOMIC_OPERATION: "Atomic Request: neither FetchAdd nor CmpSwap",
    Cause.ATOMIC_MISALIGNED: "Atomic Request: the address is no multiple of 8",
    Cause.ATOMIC_INVALID_STAG: "Atomic Request: the token is unknown, has been invalidated, or is local only",
    Cause.ATOMIC_NOT_ASSOCIATED: "Atomic Request: the token belongs to another protection domain or queue pair",
    Cause.ATOMIC_NO_RIGHT: "Atomic Request: the token gives no remote atomic",
    Cause.ATOMIC_WRAP: "Atomic Request: the 8 octets pass 2^64",
    Cause.ATOMIC_BOUNDS: "Atomic Request: outside the registered or bound range",
    Cause.UNEXPECTED_ATOMIC_RESPONSE: "an Atomic Response came and no atomic was outstanding, or with another identifier",
    Cause.LOCAL_ERROR: "this side ended it: bad local memory in an own request, flush, CQ overrun",
    Cause.NIC_FAILURE: "the adapter itself failed",
    Cause.STARTUP_FAILED: "start-up: a local failure after the Reply",
    Cause.STARTUP_INSUFFICIENT_IRD: "start-up: the peer asks for more inbound reads than this side holds",
    Cause.STARTUP_NO_RTR: "start-up: no ready-to-receive indication that both sides know",
}


def parts() -> dict[str, str]:
    """The three tables."""
    return {"classes": _classes(), "causes": _causes(), "received": _received()}


def _classes() -> str:
    names = [name for name in softndk.__all__ if _is_error_class(name) and name != "NdkError"]
    statuses: dict[str, list[str]] = {name: [] for name in names}
    for status in softndk.Status:
        if not status.is_success:
            statuses[type(error_for(status, "")).__name__].append(status.name)
    rows = []
    for name in names:
        cls = getattr(softndk, name)
        own, builtin = cls.__bases__
        assert own is softndk.NdkError
        example = cls("")
        number = getattr(example, "errno", None)
        code = errno.errorcode[number] if number else ""
        rows.append(
            (f"`{name}`", f"`{builtin.__name__}`", code, ", ".join(statuses[name]), first_sentence(cls.__doc__))
        )
    return table(("Class", "Is also a", "errno", "Statuses", "What it says"), rows)


def _is_error_class(name: str) -> bool:
    thing = getattr(softndk, name)
    return isinstance(thing, type) and issubclass(thing, softndk.NdkError)


def _causes() -> str:
    rows = []
    for cause in Cause:
        row = cause.value
        terminate = f"{row.layer:x}/{row.etype:x}/{row.code:x}"
        headers = {"NONE": "none", "DDP": "DDP", "READ": "DDP, Read Request"}[row.echo.name]
        rows.append((f"`{cause.name}`", CAUSES[cause], terminate, headers, row.rule))
    return table(("Cause", "What happened", "Terminate", "Headers returned", "Rule"), rows)


def _received() -> str:
    rows = []
    for layer, etype, code in sorted(CODES):
        status = status_for_received(Terminate(layer, etype, code))
        words = describe(layer, etype, code).rsplit(" (", 1)[0]
        rows.append((f"{layer:x}/{etype:x}/{code:x}", words, "none" if status is None else status.name))
    return table(("Terminate", "Meaning", "Status of the request that it is about"), rows)


PAGE = Page("docs/reference/errors.md", "error_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
