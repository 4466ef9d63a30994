"""What a data path is. The reference in Python (`reference.py`) is the specification; another one behaves the same.

A data path is one adapter's: its tokens and logical addresses, and a stream (iwarp/stream.py) per connection.
"""

from typing import Protocol

from softndk.iwarp.stream import Stream, StreamParameters
from softndk.memory.access import MemoryAccess
from softndk.memory.logical import LogicalSpace
from softndk.memory.tokens import TokenTable
from softndk.queues.pair import QueuePair

__all__ = ["DataPath", "Stream", "StreamParameters"]


class DataPath(Protocol):
    """One adapter's data path. `name`: "python" or "native"."""

    name: str
    tokens: TokenTable
    logical: LogicalSpace

    def open_stream(self, pair: QueuePair, access: MemoryAccess, parameters: StreamParameters) -> Stream:
        """A stream that serves `pair`'s queues."""
