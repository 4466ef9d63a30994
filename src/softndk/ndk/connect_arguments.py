"""What a program gives to connect, accept and reject: private data, read limits, and the two ends.

A wrong argument raises, with nothing changed. A local end that cannot be had is returned as the error with which the
connect will fail. `what`: object and operation, for messages.
"""

import ipaddress

from softndk.errors import InvalidParameter, NdkError, error_for
from softndk.flags import Address
from softndk.ndk.addresses import check_address
from softndk.ndk.context import AdapterContext
from softndk.ndk.endpoint import SharedEndpoint
from softndk.ndk.endpoints import ENDPOINTS
from softndk.ndk.limits import check_int
from softndk.results import AdapterInfo
from softndk.status import Status

__all__ = ["checked_private_data", "checked_read_limits", "local_end", "shared_end"]


def checked_private_data(what: str, data: bytes, info: AdapterInfo, limit: str) -> bytes:
    """A copy of the private data, whose size is within `limit`, a field of AdapterInfo."""
    try:
        octets = memoryview(data).tobytes()
    except TypeError:
        raise TypeError(f"{what}: private_data is no bytes but {type(data).__name__}") from None
    size, most = len(octets), getattr(info, limit)
    if size > most:
        raise InvalidParameter(
            f"{what}: {size} octets of private_data, limit {limit}={most} [INVALID_BUFFER_SIZE, R-PDATA-1]",
            Status.INVALID_BUFFER_SIZE,
        )
    return octets


def checked_read_limits(what: str, inbound: int | None, outbound: int | None, info: AdapterInfo) -> tuple[int, int]:
    """Inbound and outbound read limit, lowered to the adapter's, which those left out are."""
    found = []
    for name, value, limit in (
        ("inbound_read_limit", inbound, info.max_inbound_read_limit),
        ("outbound_read_limit", outbound, info.max_outbound_read_limit),
    ):
        if value is not None:
            check_int(what, name, value)
            if value < 0:
                raise InvalidParameter(f"{what}: {name}={value} [INVALID_PARAMETER, R-CONN-5]")
        found.append(limit if value is None else min(value, limit))
    return found[0], found[1]


def local_end(what: str, context: AdapterContext, target: Address, source: Address | None) -> Address | NdkError:
    """Where to connect from: the source given, or the adapter's address of the target's family and any port."""
    addresses = context.addresses
    if source is not None:
        origin = check_address(f"{what}: source", source)
        if origin[0] not in addresses:
            return error_for(
                Status.INVALID_ADDRESS,
                f"{what}: source {origin[0]} is not an address of this adapter ({', '.join(addresses)})"
                " [INVALID_ADDRESS]",
            )
        if origin[1] and ENDPOINTS.is_held(origin):
            return error_for(
                Status.SHARING_VIOLATION,
                f"{what}: source {origin[0]}:{origin[1]} is held by objects that are not closed"
                " [SHARING_VIOLATION, R-EP-2]",
            )
        return _of_one_family(what, origin, target)
    for address in addresses:
        if _version(address) == _version(target[0]):
            return (address, 0)
    return error_for(
        Status.INVALID_ADDRESS,
        f"{what}: the adapter has no IPv{_version(target[0])} address ({', '.join(addresses)}) [INVALID_ADDRESS]",
    )


def shared_end(what: str, context: AdapterContext, target: Address, endpoint: SharedEndpoint) -> Address | NdkError:
    """Where to connect from: the shared endpoint's address."""
    if endpoint._context is not context:
        raise InvalidParameter(f"{what}: {endpoint._label} belongs to another adapter [INVALID_PARAMETER]")
    if target in endpoint._destinations:
        return error_for(
            Status.ADDRESS_ALREADY_EXISTS,
            f"{what}: {endpoint._label} has a connector to {target[0]}:{target[1]} that is not closed"
            " [ADDRESS_ALREADY_EXISTS, R-CONNSE-1]",
        )
    return _of_one_family(what, endpoint._address, target)


def _of_one_family(what: str, origin: Address, target: Address) -> Address:
    if _version(origin[0]) != _version(target[0]):
        raise InvalidParameter(
            f"{what}: source {origin[0]} and destination {target[0]} are of different families"
            " [INVALID_PARAMETER, R-CONN-1]"
        )
    return origin


def _version(host: str) -> int:
    return ipaddress.ip_address(host).version
