"""Python buffers as ranges of addresses.

Turns whatever the program hands over (buffer protocol, NumPy, a chain of buffers) into one-dimensional byte views with
a start address. Addresses are indices: data is reached through the views, never by dereferencing a number.
Knows nothing of tokens and rights.
"""

import ctypes
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Protocol, cast

from typing_extensions import Buffer

from softndk.errors import InvalidParameter

__all__ = ["ByteRange", "Mdl", "Memory", "byte_view"]


class _ArrayInterface(Protocol):
    @property
    def __array_interface__(self) -> dict[str, Any]: ...


Memory = Buffer | _ArrayInterface


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def byte_view(buffer: Memory, what: str = "buffer") -> memoryview:
    """A flat view of unsigned bytes over `buffer`; the export is held until the view is released.

    Raises: InvalidParameter: not a buffer, or not contiguous.
    """
    try:
        view = memoryview(cast(Buffer, buffer))
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidParameter(
            f"{what}: {type(buffer).__name__} is no buffer ({error}); give bytearray, memoryview, mmap, array, ndarray"
        ) from None
    if not view.c_contiguous:
        raise InvalidParameter(f"{what}: not contiguous (strides {view.strides}); pass a contiguous copy [R-REGMR-1]")
    return view.cast("B") if view.nbytes else memoryview(b"")


def address_of(view: memoryview) -> int:
    """The address of the first byte of a flat view."""
    info = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(info), 0)
    try:
        return int(info.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(info))


class ByteRange:
    """Several byte views, seen as one range of octets counted from 0."""

    __slots__ = ("_parts", "_starts", "length", "readonly")

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = [part for part in parts if part.nbytes]
        self._starts: list[int] = []
        self.length = 0
        for part in self._parts:
            self._starts.append(self.length)
            self.length += part.nbytes
        self.readonly = any(part.readonly for part in self._parts)

    def slices(self, offset: int, length: int) -> list[memoryview]:
        """Views of `length` octets from `offset`, in order; the caller has checked the bounds."""
        if length == 0:
            return []
        if len(self._parts) == 1:
            return [self._parts[0][offset : offset + length]]
        found = []
        index = bisect_right(self._starts, offset) - 1
        offset -= self._starts[index]
        while length:
            piece = self._parts[index][offset : offset + length]
            found.append(piece)
            length -= piece.nbytes
            offset = 0
            index += 1
        return found

    def release(self) -> None:
        """Give the exports back. Views handed out earlier keep their own."""
        for part in self._parts:
            part.release()
        self._parts = []
        self._starts = []
        self.length = 0


class Mdl:
    """A chain of buffers that form one range of addresses (a memory descriptor list).

    buffers: one buffer or several, in order. address: the number of the first byte; left out, the real address of the
    only buffer. It is an index, never dereferenced.
    Raises: InvalidParameter: not a buffer, not contiguous, several buffers without an address, or a range that
    passes 2^64 (R-LAM-1, R-LAM-5).
    """

    __slots__ = ("_buffers", "address", "length")

    def __init__(self, buffers: Memory | Sequence[Memory], *, address: int | None = None) -> None:
        chain: list[Memory] = list(buffers) if isinstance(buffers, (list, tuple)) else [cast(Memory, buffers)]
        views = [byte_view(item, "Mdl") for item in chain]
        if address is None:
            if len(views) != 1:
                raise InvalidParameter(
                    f"Mdl: a chain of {len(views)} buffers has no address of its own; give address= [R-REGMR-1]"
                )
            address = address_of(views[0])
        elif isinstance(address, bool) or not isinstance(address, int):
            raise TypeError(f"Mdl: address={address!r} is not an int")
        self.length: int = sum(view.nbytes for view in views)
        if address < 0 or address + self.length > 1 << 64:
            raise InvalidParameter(f"Mdl: address {address:#x} with length {self.length} passes 2^64 [R-LAM-1]")
        self.address: int = address
        self._buffers = chain

    def byte_range(self, length: int) -> ByteRange:
        """The first `length` octets as a range that holds the buffers' exports."""
        views = []
        for item in self._buffers:
            view = byte_view(item, "Mdl")
            views.append(view[:length])
            length -= views[-1].nbytes
        return ByteRange(views)
