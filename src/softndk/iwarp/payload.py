"""Octets between segments and the local memory that an SGL names. Knows no headers, no queues."""

from softndk.memory.access import MemoryAccess
from softndk.memory.sge import Sge

__all__ = ["copy", "gather", "scatter"]


def copy(data: memoryview, targets: list[memoryview]) -> None:
    """Copy `data` into `targets`, which have its length together."""
    position = 0
    for target in targets:
        target[:] = data[position : position + target.nbytes]
        position += target.nbytes


def scatter(access: MemoryAccess, sgl: tuple[Sge, ...], offset: int, data: memoryview) -> None:
    """Copy `data` to message offset `offset` of the memory that `sgl` names.

    Raises: AccessDenied: nothing has been copied then.
    """
    copy(data, _pieces(access, sgl, offset, len(data), write=True))


def gather(access: MemoryAccess, sgl: tuple[Sge, ...], offset: int, length: int) -> list[memoryview]:
    """Views of `length` octets from message offset `offset` of the memory that `sgl` names. Raises AccessDenied."""
    return _pieces(access, sgl, offset, length, write=False)


def _pieces(access: MemoryAccess, sgl: tuple[Sge, ...], offset: int, length: int, *, write: bool) -> list[memoryview]:
    found: list[memoryview] = []
    for sge in sgl:
        if not length:
            break
        if offset >= sge.length:
            offset -= sge.length
            continue
        take = min(length, sge.length - offset)
        for piece in access.local(sge.token, sge.address, sge.length, write=write):
            if offset >= piece.nbytes:
                offset -= piece.nbytes
                continue
            part = min(take, piece.nbytes - offset)
            if part <= 0:
                break
            found.append(piece[offset : offset + part])
            take -= part
            length -= part
            offset = 0
        offset = 0
    return found
