"""Checks of numbers that a program gives: ints, and within the adapter's limits."""

from softndk.errors import InvalidParameter

__all__ = ["check_int", "check_limit"]


def check_int(who: str, name: str, value: object) -> None:
    """Raise TypeError unless `value` is an int. `who`: object and operation."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{who}: {name}={value!r} is not an int")


def check_limit(who: str, name: str, value: int, low: int, high: int) -> None:
    """Raise unless `value` is an int from `low` to `high`."""
    check_int(who, name, value)
    if not low <= value <= high:
        raise InvalidParameter(
            f"{who}: {name}={value}, limit {high if value > high else low} (see query_info) [INVALID_PARAMETER]"
        )
