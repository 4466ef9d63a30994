"""A fault of a whole adapter, asked for: what a program sees when its NIC dies."""

from softndk.ndk.adapter import Adapter

__all__ = ["fail_adapter"]


def fail_adapter(adapter: Adapter, why: str = "a test has asked for it") -> None:
    """Let the adapter fail as a whole, as a NIC with a fault of its own would. It is only good for closing then.

    Every established connection ends with Terminate 0/2/8 (error table row 41), one between Reply and complete_connect with
    2/0/5, others are reset. What is posted completes once, as CANCELLED; receives in an SRQ have no results (R-FLUSH-8).
    Then all CQs and SRQs fail with INTERNAL_ERROR (R-CQERR-2, -5): results that are there can still be taken. What waits
    for a connection, and every call that needs a working adapter, fails as AdapterUnavailable (DEVICE_REMOVED), a post as
    ConnectionInvalid (R-CQERR-4). Other adapters are not affected. A second call does nothing. `why`: for messages.

    Raises: InvalidHandle: the adapter is closed.
    """
    if not isinstance(why, str):
        raise TypeError(f"fail_adapter: why={why!r} is no str")
    adapter._fail(why)
