"""NDKPI's rules of memory as dictionaries: buffers, regions, windows, tokens, who may touch what.

One `ModelMemory` is one end's. Tokens and logical addresses are names here: "L:rw:0" is the local token of the first
registration of region rw, "R:w0:0" a window's remote token. Must not know queues and connections, and shares no code
with what it judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from softndk.conformance.model_closing import Closing

__all__ = [
    "ATOMIC",
    "LOCAL_WRITE",
    "PAGE",
    "READ",
    "REMOTE",
    "WRITE",
    "Chunk",
    "Denied",
    "ModelMemory",
    "ModelMr",
    "ModelMw",
]

PAGE = 4096
READ, WRITE, ATOMIC, LOCAL_WRITE = "remote read", "remote write", "remote atomic", "local write"
REMOTE = frozenset({READ, WRITE, ATOMIC})


@dataclass(frozen=True)
class Chunk:
    """Octets of a named buffer."""

    buffer: str
    offset: int
    length: int


class Denied(Exception):
    """An access that the rules forbid. `why`: token, pd, right or bounds, in the order of R-MEM-1 to R-MEM-3."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class ModelMr:
    """A region. `life`: number of its registration; a fast-register one keeps its tokens for ever (R-TOK-4)."""

    name: str
    fast: bool
    own_pd: bool = True
    page_limit: int = 0
    remote_access: bool = False
    life: int = 0
    valid: bool = False
    base: int = 0
    rights: frozenset[str] = frozenset()
    chunks: list[Chunk] = field(default_factory=list)
    closing: Closing = field(default_factory=Closing)

    @property
    def length(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


@dataclass
class ModelMw:
    """A window. `qp`: number of the QP that it is bound to (R-BIND-5)."""

    name: str
    life: int = 0
    mr: ModelMr | None = None
    qp: int = 0
    base: int = 0
    length: int = 0
    rights: frozenset[str] = frozenset()
    closing: Closing = field(default_factory=Closing)

    @property
    def valid(self) -> bool:
        return self.mr is not None


class ModelMemory:
    """Memory objects of one end. `lams`: logical mappings, as name -> (logical address, fbo, length). `pd`: the QPs'; the
    regions that are not `own_pd` belong to `other_pd`.
    """

    def __init__(self) -> None:
        self.buffers: dict[str, bytearray] = {}
        self.mrs: dict[str, ModelMr] = {}
        self.mws: dict[str, ModelMw] = {}
        self.lams: dict[str, tuple[int, int, int]] = {}
        self.pd, self.other_pd = Closing(), Closing()

    def windows_on(self, mr: ModelMr) -> int:
        return sum(mw.mr is mr for mw in self.mws.values())

    def extent(self, token: str) -> tuple[int, int] | None:
        """Base and length of what the token names, if that is valid."""
        mw, mr = self._mw(token), self._mr(token, "L") or self._mr(token, "R")
        if mw is not None and mw.valid:
            return mw.base, mw.length
        return (mr.base, mr.length) if mr is not None and mr.valid else None

    # ---- octets

    def get(self, chunks: Sequence[Chunk]) -> bytes:
        return b"".join(bytes(self.buffers[c.buffer][c.offset : c.offset + c.length]) for c in chunks)

    def put(self, chunks: Sequence[Chunk], data: bytes) -> None:
        for chunk in chunks:
            self.buffers[chunk.buffer][chunk.offset : chunk.offset + chunk.length] = data[: chunk.length]
            data = data[chunk.length :]

    # ---- accesses

    def local(self, token: str, address: int, length: int, *, write: bool) -> list[Chunk]:
        """What an SGE names. R-WR-9: the privileged token goes with logical addresses. R-WR-15: targets need local
        write. A remote token is no local one (R-TOK-1, -3).
        """
        if token == "L:priv":
            return self.logical(address, length)
        mr = self._mr(token, "L")
        if mr is None or not mr.valid:
            raise Denied("token")
        if not mr.own_pd:
            raise Denied("pd")
        if write and LOCAL_WRITE not in mr.rights:
            raise Denied("right")
        return self._inside(mr.chunks, address - mr.base, length, mr.length)

    def remote(self, token: str, qp: int, address: int, length: int, right: str) -> list[Chunk]:
        """What the peer may touch. R-MEM-1: token known, valid, of the QP's PD, a window of this QP; a local or the
        privileged token never. R-MEM-2: the right. R-MEM-3: all of it inside.
        """
        mw = self._mw(token)
        if mw is not None and mw.mr is not None:
            if mw.qp != qp:
                raise Denied("pd")
            if right not in mw.rights:
                raise Denied("right")
            inside = self._inside(mw.mr.chunks, address - mw.mr.base, length, mw.mr.length) if length else []
            if address < mw.base or address + length > mw.base + mw.length:
                raise Denied("bounds")
            return inside
        mr = self._mr(token, "R")
        if mr is None or not mr.valid:
            raise Denied("token")
        if not mr.own_pd:
            raise Denied("pd")
        if right not in mr.rights:
            raise Denied("right")
        return self._inside(mr.chunks, address - mr.base, length, mr.length)

    def invalidate_from_peer(self, token: str, qp: int) -> None:
        """R-INVAL-1: a valid FRMR with a remote right and no windows, or a valid window of this QP; else Denied."""
        mw = self._mw(token)
        if mw is not None and mw.valid:
            if mw.qp != qp:
                raise Denied("pd")
            mw.mr = None
            return
        mr = self._mr(token, "R")
        if mr is None or not mr.valid or not mr.own_pd or not mr.fast:
            raise Denied("token")
        if not mr.rights & REMOTE or self.windows_on(mr):
            raise Denied("right")
        mr.valid = False

    def logical(self, address: int, length: int) -> list[Chunk]:
        """R-LAM: octets at logical addresses; those of a page outside the mapped buffer do not exist."""
        for name, (start, fbo, size) in self.lams.items():
            offset = address - start - fbo
            if offset >= 0 and offset + length <= size:
                return [Chunk(name, offset, length)]
        raise Denied("bounds")

    def fast_register_chunks(self, pages: Sequence[int], fbo: int, length: int) -> list[Chunk]:
        """R-FREG-3: the region starts `fbo` octets into the first page and goes on page by page."""
        chunks: list[Chunk] = []
        for number, page in enumerate(pages):
            start = fbo if number == 0 else 0
            take = min(PAGE - start, length)
            if take > 0:
                chunks += self.logical(page + start, take)
                length -= take
        if length > 0:
            raise Denied("bounds")
        return chunks

    def fast(self, token: str) -> ModelMr | None:
        """The fast-register region that a local or remote token names, valid or not."""
        mr = self._mr(token, "L") or self._mr(token, "R")
        return mr if mr is not None and mr.fast else None

    def _mr(self, token: str, side: str) -> ModelMr | None:
        kind, _, rest = token.partition(":")
        name, _, life = rest.partition(":")
        mr = self.mrs.get(name)
        return mr if mr is not None and kind == side and life == str(mr.life) else None

    def _mw(self, token: str) -> ModelMw | None:
        kind, _, rest = token.partition(":")
        name, _, life = rest.partition(":")
        mw = self.mws.get(name)
        return mw if mw is not None and kind == "R" and life == str(mw.life) else None

    @staticmethod
    def _inside(chunks: Sequence[Chunk], offset: int, length: int, size: int) -> list[Chunk]:
        if offset < 0 or offset + length > size:
            raise Denied("bounds")
        found = []
        for chunk in chunks:
            take = min(chunk.length - offset, length)
            if take > 0:
                found.append(Chunk(chunk.buffer, chunk.offset + offset, take))
                length -= take
            offset = max(0, offset - chunk.length)
        return found
