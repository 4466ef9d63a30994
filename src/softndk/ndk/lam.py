"""Logical address mapping (NdkBuildLAM): pages of the adapter's own address space over a buffer."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from softndk.errors import InvalidHandle
from softndk.flags import PAGE_SIZE, LocalToken
from softndk.memory.buffers import ByteRange
from softndk.memory.sge import Sge
from softndk.ndk.context import AdapterContext
from softndk.ndk.limits import check_int

__all__ = ["LogicalAddressMapping"]


class LogicalAddressMapping:
    """See the module. Made by Adapter.build_lam.

    pages: page-aligned logical addresses, one per PAGE_SIZE page, neighbours not promised (R-LAM-3). fbo: offset of the
    first octet inside the first page (R-LAM-4). length: octets. address: number of the first octet, only an index.
    Release it after every request that uses it has completed (R-LAM-10).
    """

    pages: Sequence[int]
    fbo: int
    length: int
    address: int

    def __init__(self, context: AdapterContext, memory: ByteRange, address: int) -> None:
        self.fbo = address % PAGE_SIZE
        self.length = memory.length
        self.address = address
        self._context = context
        self._memory = memory
        with context.runtime.lock:
            self.pages = tuple(context.datapath.logical.map(memory, self.fbo))
        self._released = False

    def sges(self, offset: int, length: int, token: LocalToken) -> list[Sge]:
        """SGEs with logical addresses over `length` octets from `offset`, one per page touched (R-WR-9).

        token: the PD's privileged token.

        Raises: IndexError: outside the mapping. InvalidHandle: released.
        """
        if self._released:
            raise InvalidHandle("LogicalAddressMapping sges: released [INVALID_HANDLE]")
        check_int("LogicalAddressMapping sges", "offset", offset)
        check_int("LogicalAddressMapping sges", "length", length)
        if offset < 0 or length < 0 or offset + length > self.length:
            raise IndexError(
                f"LogicalAddressMapping: offset {offset}, length {length} is outside its {self.length} octets"
            )
        found = []
        position = self.fbo + offset
        while length:
            page, inside = divmod(position, PAGE_SIZE)
            take = min(length, PAGE_SIZE - inside)
            found.append(Sge(self.pages[page] + inside, take, token))
            position += take
            length -= take
        return found

    def release(self) -> None:
        """Give the mapping back (NdkReleaseLAM); the buffer is left as it is (R-LAM-9). Again: nothing happens.

        The program sees to it that every request that uses the mapping has completed (R-LAM-10).
        """
        with self._context.runtime.lock:
            if not self._released:
                self._released = True
                self._context.datapath.logical.unmap(self.pages)
                self._memory.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.release()
