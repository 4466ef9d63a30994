"""Scatter/gather elements: how a request names local memory (NDK_SGE)."""

from collections.abc import Sequence
from dataclasses import dataclass

from softndk.flags import LocalToken
from softndk.memory.buffers import Memory, byte_view

__all__ = ["InlineSge", "Sge", "Sgl"]


@dataclass(frozen=True, slots=True)
class Sge:
    """Address, length in octets, token. Three numbers; keeps nothing alive. ``mr[0:64]`` makes one."""

    address: int
    length: int
    token: LocalToken

    @staticmethod
    def inline(data: Memory) -> "Sge":
        """Unregistered bytes, for OpFlag.INLINE; copied by the post (R-WR-10)."""
        view = byte_view(data, "Sge.inline")
        return InlineSge(0, view.nbytes, LocalToken(0), view)


@dataclass(frozen=True, slots=True)
class InlineSge(Sge):
    """An SGE that carries its bytes until the post has copied them."""

    data: memoryview


Sgl = Sge | Sequence[Sge]
