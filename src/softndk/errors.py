"""What a failed call, a failed request and a failed connection look like to the program.

::

    NdkError
     +- InvalidParameter, DataOverrun, InvalidHandle      (ValueError)
     +- InvalidState, InternalError                       (RuntimeError)
     +- QueueFull                                         (BlockingIOError)
     +- AccessViolation                                   (PermissionError)
     +- ConnectionInvalid, RemoteError                    (ConnectionError)
     +- Refused, Aborted, RequestCancelled                (ConnectionRefused-, Aborted-, ResetError)
     +- IoTimeout                                         (TimeoutError)
     +- AddressUnavailable, Unreachable,
     |  InsufficientResources, BufferOverflow,
     |  AdapterUnavailable                                (OSError)
     +- NotSupported                                      (NotImplementedError)

Every one carries the NDKPI status. `error_for(status, text)` picks the class.
"""

import copy
import errno
from dataclasses import dataclass
from typing import Any, Final

from softndk.status import Status

__all__ = [
    "Aborted",
    "AccessViolation",
    "AdapterUnavailable",
    "AddressUnavailable",
    "BufferOverflow",
    "ConnectionInvalid",
    "DataOverrun",
    "Fault",
    "InsufficientResources",
    "InternalError",
    "InvalidHandle",
    "InvalidParameter",
    "InvalidState",
    "IoTimeout",
    "NdkError",
    "NotSupported",
    "QueueFull",
    "Refused",
    "RemoteError",
    "RequestCancelled",
    "Unreachable",
    "error_for",
    "error_from_os",
    "fresh_copy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What went wrong on the wire or against a rule, as a value.

    `layer`, `etype`, `code`: the Terminate triple (RFC 5040 4.8; RFC 5041 8; RFC 5044 8).
    `received`: the peer's Terminate (True) or one of ours (False). `header`: the offending DDP header, then the
    Read Request header if there is one, as on the wire. `rule`: where the rule stands. `text`: one sentence.
    """

    layer: int
    etype: int
    code: int
    received: bool
    header: bytes
    rule: str
    text: str


class NdkError(Exception):
    """A failure with its NDKPI status.

    `provider_error_code`: 0x10000 | first two Terminate octets received, 0x20000 | the same sent,
    0x30000 | errno, 0x40000 graceful end, 0 unknown. `private_data`: what a refusing peer sent, else None.
    """

    status: Status
    provider_error_code: int
    fault: Fault | None
    private_data: bytes | None

    default_status: Status = Status.UNSUCCESSFUL
    default_errno: int | None = None

    def __init__(
        self,
        text: str = "",
        status: Status | None = None,
        *,
        provider_error_code: int = 0,
        fault: Fault | None = None,
        private_data: bytes | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = self.default_status if status is None else status
        self.provider_error_code = provider_error_code
        self.fault = fault
        self.private_data = private_data
        if isinstance(self, OSError) and self.default_errno is not None:
            _set_errno(self, self.default_errno, text)

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.text, self.status), self.__dict__.copy())

    def explain(self) -> str:
        """The failure for a person: what happened, by which rule, on whose side, and what caused it."""
        lines = [f"{self.status.name}: {self.text}"]
        if self.fault is not None:
            side = "the peer ended the connection" if self.fault.received else "this side ended the connection"
            triple = f"{self.fault.layer:x}/{self.fault.etype:x}/{self.fault.code:x}"
            lines.append(f"  {side} with Terminate {triple}")
            if self.fault.text not in self.text:
                lines.append(f"  {self.fault.text}")
            if self.fault.rule:
                lines.append(f"  rule: {self.fault.rule}")
            if self.fault.header:
                lines.append(f"  offending header: {_without_tokens(self.fault.header)}")
        cause = self.__cause__
        if cause is not None:
            text = cause.explain() if isinstance(cause, NdkError) else str(cause)
            lines.append("  caused by: " + text.replace("\n", "\n  "))
        return "\n".join(lines)


def _without_tokens(header: bytes) -> str:
    """The header in hexadecimal; of each token (octets 2 to 5, and two more in a Read Request) only the first half."""
    octets = header.hex(" ").split(" ")
    for token in (2, 18, 34):
        octets[token + 2 : token + 4] = ["**"] * len(octets[token + 2 : token + 4])
    return " ".join(octets)


def _set_errno(error: OSError, number: int, text: str) -> None:
    error.errno = number
    error.strerror = text


def _rebuild(cls: type[NdkError], text: str, status: Status) -> NdkError:
    return cls(text, status)


class InvalidParameter(NdkError, ValueError):
    """The call's arguments are wrong, or over a limit; nothing has changed."""

    default_status = Status.INVALID_PARAMETER


class DataOverrun(NdkError, ValueError):
    """More SGEs or data than the queue or the adapter takes."""

    default_status = Status.DATA_OVERRUN


class InvalidHandle(NdkError, ValueError):
    """The object is closing or closed, or belongs to another process."""

    default_status = Status.INVALID_HANDLE


class InvalidState(NdkError, RuntimeError):
    """The object is not in a state in which the call is legal."""

    default_status = Status.INVALID_DEVICE_STATE


class InternalError(NdkError, RuntimeError):
    """The provider failed."""

    default_status = Status.INTERNAL_ERROR


class QueueFull(NdkError, BlockingIOError):
    """More requests outstanding than the queue holds (R-WR-8)."""

    default_status = Status.NO_MORE_ENTRIES
    default_errno = errno.EAGAIN


class AccessViolation(NdkError, PermissionError):
    """Memory, range or right that is not there."""

    default_status = Status.ACCESS_VIOLATION
    default_errno = errno.EACCES


class ConnectionInvalid(NdkError, ConnectionError):
    """Not connected."""

    default_status = Status.CONNECTION_INVALID
    default_errno = errno.ENOTCONN


class RemoteError(NdkError, ConnectionError):
    """The peer's NIC refused the request."""

    default_status = Status.REMOTE_RESOURCES
    default_errno = errno.EREMOTEIO if hasattr(errno, "EREMOTEIO") else errno.EPROTO


class Refused(NdkError, ConnectionRefusedError):
    """Nobody listens, or the peer rejected; then `private_data` is what it said."""

    default_status = Status.CONNECTION_REFUSED
    default_errno = errno.ECONNREFUSED


class Aborted(NdkError, ConnectionAbortedError):
    """The connection ended by an error, a reset or the peer's giving up."""

    default_status = Status.CONNECTION_ABORTED
    default_errno = errno.ECONNABORTED


class RequestCancelled(NdkError, ConnectionResetError):
    """A flushed request; `__cause__` is the QP's first failure."""

    default_status = Status.CANCELLED
    default_errno = errno.ECONNRESET


class IoTimeout(NdkError, TimeoutError):
    """The peer did not answer within the provider's limit."""

    default_status = Status.IO_TIMEOUT
    default_errno = errno.ETIMEDOUT


class AddressUnavailable(NdkError, OSError):
    """The local address is taken, or not this adapter's, or no port is free."""

    default_status = Status.SHARING_VIOLATION
    default_errno = errno.EADDRINUSE

    def __init__(self, text: str = "", status: Status | None = None, **details: Any) -> None:
        super().__init__(text, status, **details)
        if self.status is Status.INVALID_ADDRESS:
            self.errno = errno.EADDRNOTAVAIL


class Unreachable(NdkError, OSError):
    """No route to the network or the host."""

    default_status = Status.HOST_UNREACHABLE
    default_errno = errno.EHOSTUNREACH

    def __init__(self, text: str = "", status: Status | None = None, **details: Any) -> None:
        super().__init__(text, status, **details)
        if self.status is Status.NETWORK_UNREACHABLE:
            self.errno = errno.ENETUNREACH


class InsufficientResources(NdkError, OSError):
    """Memory, descriptors or table entries have run out."""

    default_status = Status.INSUFFICIENT_RESOURCES
    default_errno = errno.ENOBUFS


class BufferOverflow(NdkError, OSError):
    """A message, a request or a queue's content is larger than its room."""

    default_status = Status.BUFFER_OVERFLOW
    default_errno = errno.EMSGSIZE


class AdapterUnavailable(NdkError, OSError):
    """The adapter is not there (any more)."""

    default_status = Status.DEVICE_NOT_READY
    default_errno = errno.ENODEV


class NotSupported(NdkError, NotImplementedError):
    """This adapter or version does not have it."""

    default_status = Status.NOT_SUPPORTED


_CLASSES: Final[dict[Status, type[NdkError]]] = {
    Status.INVALID_PARAMETER_MIX: InvalidParameter,
    Status.INVALID_BUFFER_SIZE: InvalidParameter,
    Status.IMPLEMENTATION_LIMIT: InvalidParameter,
    Status.BUFFER_TOO_SMALL: InvalidParameter,
    Status.DATA_OVERRUN: DataOverrun,
    Status.INVALID_HANDLE: InvalidHandle,
    Status.INVALID_DEVICE_STATE: InvalidState,
    Status.INVALID_DEVICE_REQUEST: InvalidState,
    Status.CONNECTION_ACTIVE: InvalidState,
    Status.DEVICE_BUSY: InvalidState,
    Status.INTERNAL_ERROR: InternalError,
    Status.DATA_ERROR: InternalError,
    Status.UNSUCCESSFUL: InternalError,
    Status.NO_MORE_ENTRIES: QueueFull,
    Status.ACCESS_VIOLATION: AccessViolation,
    Status.CONNECTION_INVALID: ConnectionInvalid,
    Status.REMOTE_RESOURCES: RemoteError,
    Status.CONNECTION_REFUSED: Refused,
    Status.CONNECTION_ABORTED: Aborted,
    Status.CONNECTION_RESET: Aborted,
    Status.CONNECTION_DISCONNECTED: Aborted,
    Status.CANCELLED: RequestCancelled,
    Status.IO_TIMEOUT: IoTimeout,
    Status.SHARING_VIOLATION: AddressUnavailable,
    Status.INVALID_ADDRESS: AddressUnavailable,
    Status.TOO_MANY_ADDRESSES: AddressUnavailable,
    Status.ADDRESS_ALREADY_EXISTS: AddressUnavailable,
    Status.NETWORK_UNREACHABLE: Unreachable,
    Status.HOST_UNREACHABLE: Unreachable,
    Status.INSUFFICIENT_RESOURCES: InsufficientResources,
    Status.NO_MEMORY: InsufficientResources,
    Status.BUFFER_OVERFLOW: BufferOverflow,
    Status.DEVICE_NOT_READY: AdapterUnavailable,
    Status.DEVICE_REMOVED: AdapterUnavailable,
    Status.NDIS_ADAPTER_NOT_READY: AdapterUnavailable,
    Status.NOT_SUPPORTED: NotSupported,
    Status.NDIS_BAD_VERSION: NotSupported,
}
_CLASSES.update({s: InvalidParameter for s in Status if s.name.startswith("INVALID_PARAMETER")})


def error_for(status: Status, text: str, **details: Any) -> NdkError:
    """The exception of the class that belongs to `status`; `details` as NdkError's keywords."""
    return _CLASSES[status](text, status, **details)


_FROM_ERRNO: Final[dict[int, Status]] = {
    errno.ECONNREFUSED: Status.CONNECTION_REFUSED,
    errno.ECONNRESET: Status.CONNECTION_RESET,
    errno.ECONNABORTED: Status.CONNECTION_ABORTED,
    errno.EPIPE: Status.CONNECTION_RESET,
    errno.ETIMEDOUT: Status.IO_TIMEOUT,
    errno.ENETUNREACH: Status.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Status.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Status.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Status.HOST_UNREACHABLE,
    errno.EADDRINUSE: Status.SHARING_VIOLATION,
    errno.EADDRNOTAVAIL: Status.INVALID_ADDRESS,
    errno.EAFNOSUPPORT: Status.INVALID_ADDRESS,
    errno.EINVAL: Status.INVALID_ADDRESS,
    errno.EISCONN: Status.ADDRESS_ALREADY_EXISTS,
    errno.EACCES: Status.INVALID_ADDRESS,
    errno.EPERM: Status.INVALID_ADDRESS,
    errno.EMFILE: Status.INSUFFICIENT_RESOURCES,
    errno.ENFILE: Status.INSUFFICIENT_RESOURCES,
    errno.ENOBUFS: Status.INSUFFICIENT_RESOURCES,
    errno.ENOMEM: Status.INSUFFICIENT_RESOURCES,
}


def error_from_os(error: OSError, text: str, default: Status = Status.CONNECTION_ABORTED) -> NdkError:
    """What an operating system error means for the program; its number goes into the provider code."""
    number = error.errno or 0
    status = _FROM_ERRNO.get(number, default)
    name = errno.errorcode.get(number, str(number))
    reason = error.strerror or str(error)
    return error_for(status, f"{text}: {reason} [{status.name}, {name}]", provider_error_code=0x30000 | number)


def fresh_copy(error: BaseException) -> BaseException:
    """An own instance for one waiter: same class, text and cause, no traceback of somebody else's raise."""
    try:
        twin = copy.copy(error)
    except Exception:  # a foreign exception may have any constructor; then its one instance must do
        return error
    twin.__cause__ = error.__cause__
    return twin
