"""Checks of numbers that a program gives: ints, and within the adapter's limits."""

from softndk.errors import InvalidParameter
from softndk.results import AdapterInfo

__all__ = ["check_capacity", "check_int", "check_limit"]


def check_int(who: str, name: str, value: object) -> None:
    """Raise TypeError unless `value` is an int. `who`: object and operation."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{who}: {name}={value!r} is not an int")


def check_limit(who: str, name: str, value: int, low: int, high: int, of: str = "") -> None:
    """Raise unless `value` is an int from `low` to `high`. of: where `high` comes from, for the message."""
    check_int(who, name, value)
    if not low <= value <= high:
        raise InvalidParameter(f"{who}: {name}={value}, must be {low} to {high}{of} [INVALID_PARAMETER]")


def check_capacity(who: str, name: str, value: int, info: AdapterInfo, limit: str, *, least: int = 0) -> None:
    """Raise unless `value` is an int from `least` to the adapter's `limit`, a field of AdapterInfo."""
    check_limit(who, name, value, least, getattr(info, limit), f" ({limit} of query_info)")
