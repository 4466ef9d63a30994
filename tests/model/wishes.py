"""What the state machine draws: wishes, and the requests that they come to as things stand.

A wish names memory and rights; `make` turns it into a request that should work, mostly, or that is wrong in one place.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TypeVar

from hypothesis import strategies as st

from softndk.conformance.model_atomics import number_in
from softndk.conformance.model_end import ModelEnd, rights_of
from softndk.conformance.model_memory import ATOMIC, READ, REMOTE, WRITE, Denied
from softndk.conformance.model_queues import ATOMICS, Kind, Posted, Sge
from softndk.flags import OpFlag
from tests.model.ends import FAST_BASE, LAMS, RIGHTS, SIZE, Shape

PAGES_TO_DEFER = [(0, 0), (1, 1), (0, 0, 0), (1, 0, 1)]
"""Draws that also mean: defer, or do not wait for a receive at the peer's SRQ."""
PLACES = [0, 0, 8, 100, 500, 900, 1020]
LENGTHS = [0, 1, 7, 32, 64, 64, 200, 600]
T = TypeVar("T")
EDGES: dict[tuple[int, ...], tuple[str, int]] = {
    (1, 1, 1): ("end", 0),
    (0, 1, 1): ("end", 1),
    (0, 0, 1): ("front", 1),
    (1, 1, 0): ("own", 0),
    (1, 0, 0): ("own", 1),
}
"""And: a range at the edge of its object, or beyond."""
WRONG_HERE, WRONG_THERE = (1, 0, 1), (0, 1, 0)
"""And: memory as drawn, whether it may be used or not, in a request that is right otherwise."""
ODD = (0, 1)
"""And, for an atomic: an address that is no multiple of 8."""


@dataclass(frozen=True)
class Spot:
    """Memory that a request names: by whom, from where, how much."""

    name: str
    offset: int
    length: int


@dataclass(frozen=True)
class Wish:
    """A request as drawn. `careful`: keep to what should work now."""

    kind: Kind
    spots: tuple[Spot, ...]
    inline: bool
    remote: Spot
    flags: tuple[OpFlag, ...]
    takes: str
    pages: tuple[int, ...]
    operands: tuple[int, ...]
    careful: bool


LOCAL_NAMES = ["rw"] * 6 + ["at", "lo", "ro", "fr0", "fr0", "fr1", "priv", "alien", "bogus", "remote"]
REMOTE_NAMES = ["rw"] * 5 + ["at", "ro", "lo", "fr0", "fr0", "fr1", "w0", "w0", "w1", "alien", "bogus", "local"]
TAKEN_NAMES = [""] * 3 + ["fr0", "fr0", "fr1", "w0", "w0", "w1", "rw", "alien", "bogus", "local"]
ANY_FLAG = [OpFlag.SILENT_SUCCESS, OpFlag.READ_FENCE]
TRAFFIC: list[Kind] = ["send", "send", "send", "write", "read", "read", "send_immediate", *ATOMICS]
LOCAL_KINDS: list[Kind] = ["bind", "fast_register", "invalidate"]
KINDS = [*TRAFFIC, *LOCAL_KINDS]
ONES = (1 << 64) - 1
NUMBERS = [0, 1, 0xFF, 1 << 63, ONES, 0x0123456789ABCDEF]
MASKS = [ONES, ONES, 0, 0xFFFFFFFF, 0xF0F0F0F0F0F0F0F0, 1 << 63]
FIELDS = [0, 0, 1 << 63, 1 << 31, 1 << 63 | 1 << 31, 0x8080808080808080, ONES]
"""Of a FetchAdd: the top bits of the fields that are added apart."""
OPERANDS: dict[str, list[tuple[int, ...]]] = {
    "fetch_add": list(product(NUMBERS, FIELDS)),
    "compare_swap": list(product(NUMBERS, NUMBERS, MASKS, MASKS)),
}
EXTRA = {
    "send": [OpFlag.SEND_AND_SOLICIT_EVENT],
    "write": [],
    "read": [OpFlag.RDMA_READ_LOCAL_INVALIDATE],
    "bind": [OpFlag.ALLOW_REMOTE_READ, OpFlag.ALLOW_REMOTE_WRITE, OpFlag.ALLOW_REMOTE_ATOMIC],
    "fast_register": [
        OpFlag.ALLOW_REMOTE_READ,
        OpFlag.ALLOW_LOCAL_WRITE,
        OpFlag.ALLOW_REMOTE_WRITE,
        OpFlag.ALLOW_REMOTE_ATOMIC,
    ],
    "invalidate": [],
    "send_immediate": [OpFlag.SEND_AND_SOLICIT_EVENT],
    "fetch_add": [],
    "compare_swap": [],
}


def one_of_many(items: list[T]) -> st.SearchStrategy[T]:
    """One draw: drawing is most of the time that a run takes."""
    return st.integers(0, len(items) - 1).map(lambda index: items[index])


def spots(names: list[str]) -> st.SearchStrategy[Spot]:
    return one_of_many([Spot(name, place, length) for name in names for place in PLACES for length in LENGTHS])


def flags_of(kind: Kind) -> st.SearchStrategy[tuple[OpFlag, ...]]:
    """Up to three, those of the kind more often."""
    choice = [*ANY_FLAG, *EXTRA[kind], *EXTRA[kind], *EXTRA[kind]]
    several = [flags for count in range(4) for flags in combinations(choice, count) if len(set(flags)) == count]
    return one_of_many(several)


def wishes_of(kind: Kind) -> st.SearchStrategy[Wish]:
    return st.builds(
        Wish,
        kind=st.just(kind),
        spots=st.lists(spots(LOCAL_NAMES), min_size=0, max_size=4).map(tuple),
        inline=st.booleans() if kind in ("send", "write") else st.just(False),
        remote=spots(REMOTE_NAMES),
        flags=flags_of(kind),
        takes=st.sampled_from(TAKEN_NAMES) if kind == "send" else st.just(""),
        pages=st.sampled_from([pages for count in (1, 2, 3) for pages in product((0, 1), repeat=count)]),
        operands=one_of_many(OPERANDS.get(kind, [()])),
        careful=st.sampled_from([True] * 11 + [False]),
    )


wishes = st.sampled_from(KINDS).flatmap(wishes_of)
traffic = st.sampled_from(TRAFFIC).flatmap(wishes_of)
sides = st.sampled_from(["a", "b"])


shapes = st.builds(
    Shape,
    one_cq=st.booleans(),
    cq_depth=st.sampled_from([64, 64, 64, 5]),
    read_limits=st.tuples(*[st.sampled_from([1, 2, 3] * 20 + [0])] * 2),
    srq=st.sampled_from([frozenset(), frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})]),
    mss=st.sampled_from([9000, 9000, 536]),
    new_windows=st.booleans(),
    calm=st.booleans(),
)


# ---- from wishes to requests


def local_sges(here: ModelEnd, wish_spots: tuple[Spot, ...], *, careful: bool, write: bool) -> tuple[Sge, ...]:
    memory = here.memory
    found = []
    for spot in wish_spots[: 3 if careful else 4]:
        name, place, length = spot.name, spot.offset, spot.length
        if careful and (
            name in ("alien", "bogus", "remote")
            or (write and name == "ro")
            or (name in FAST_BASE and not memory.mrs[name].valid)
        ):
            name = "rw"
        if name == "priv":
            base, token = LAMS["lam0"][0] + 64, "L:priv"
        elif name in FAST_BASE:
            base, token = (
                memory.mrs[name].base if careful else FAST_BASE[name] + 100,
                f"L:{name}:{memory.mrs[name].life}",
            )
        elif name in RIGHTS:
            base, token = RIGHTS[name][0], f"L:{name}:{memory.mrs[name].life}"
        else:
            base, token = RIGHTS["rw"][0], "X" if name == "bogus" else f"R:rw:{memory.mrs['rw'].life}"
        if careful and name in memory.mrs:
            length = min(length, memory.mrs[name].length - place)
        found.append(Sge(token, base + place, length))
    return tuple(found)


def _remote_name(there: ModelEnd, name: str, *, careful: bool, right: str | None) -> str:
    """A name at the peer; with care mostly one that may be used for `right`, or taken away where that is None."""
    memory = there.memory
    if not careful:
        return name
    if name == "alien":  # a near miss: another PD, or the QP of an earlier connection
        stale = [mw.name for mw in memory.mws.values() if mw.valid and mw.qp != there.qp]
        return stale[0] if stale else name
    if right is None and name == "bogus":  # a near miss: a region that is not the peer's to take
        kept = [mr.name for mr in memory.mrs.values() if mr.fast and mr.valid and not mr.rights & REMOTE]
        return kept[0] if kept else name
    if name in memory.mws:
        mw = memory.mws[name]
        good = mw.valid and mw.qp == there.qp and (right is None or right in mw.rights)
    elif name in memory.mrs:
        mr = memory.mrs[name]
        good = mr.valid and mr.own_pd
        if right is None:
            good = good and mr.fast and bool(mr.rights & REMOTE) and not memory.windows_on(mr)
        else:
            good = good and right in mr.rights
    else:
        good = False
    return name if good else ("" if right is None else _resort(right))


def _resort(right: str) -> str:
    """The region that always gives the right."""
    return "at" if right == ATOMIC else "rw"


def _remote_place(
    there: ModelEnd, spot: Spot, name: str, *, careful: bool, size: int, resort: str = "rw"
) -> tuple[str, int]:
    """Token and address at the peer. `resort`: the region to take where the one that is named is too small."""
    memory = there.memory
    place = spot.offset if not careful else min(spot.offset, max(0, SIZE - size))
    if careful and name in (*memory.mws, *FAST_BASE):
        token = f"R:{name}:{(memory.mws.get(name) or memory.mrs[name]).life}"
        extent = memory.extent(token)
        if extent is not None and size <= extent[1]:
            return token, extent[0] + min(spot.offset, extent[1] - size)
        if extent is not None:
            name, place = resort, 0
    if name in memory.mws:
        mw = memory.mws[name]
        base = mw.base if mw.valid else RIGHTS["rw"][0]
        return f"R:{name}:{mw.life}", base + (0 if careful and place + size > mw.length else place)
    if name in FAST_BASE:
        return f"R:{name}:{memory.mrs[name].life}", FAST_BASE[name] + 100 + place
    if name in memory.mrs:
        return f"R:{name}:{memory.mrs[name].life}", memory.mrs[name].base + place
    return "X" if name == "bogus" else f"L:rw:{memory.mrs['rw'].life}", RIGHTS["rw"][0] + place


def _to_the_edge(here: ModelEnd, there: ModelEnd, wish: Wish, post: Posted) -> None:
    """Ranges that end, or begin, where their object does, or one octet beyond."""
    if wish.pages not in EDGES:
        return
    whose, beyond = EDGES[wish.pages]
    memory = (here if whose == "own" or post.kind == "bind" else there).memory
    if whose == "own" and post.sges and post.inline is None:
        *rest, last = post.sges
        extent = memory.extent(last.token)
        if extent is not None and last.length:
            post.sges = (*rest, replace(last, address=sum(extent) - last.length + beyond))
    elif whose != "own" and post.kind in ATOMICS:
        extent = memory.extent(post.token)
        if extent is not None:  # the last that is wholly inside, or the next; the last that begins before
            place = extent[0] - 1 if whose == "front" else sum(extent) - 8 + 8 * beyond
            post.address = place - place % 8
    elif whose != "own" and post.kind in ("read", "write", "bind"):
        extent = memory.extent(f"R:{post.target}:{memory.mrs[post.target].life}" if post.target else post.token)
        size = post.length if post.kind == "bind" else post.size
        if extent is not None:
            post.address = extent[0] - 1 if whose == "front" else sum(extent) - size + beyond


def _better(here: ModelEnd, wish: Wish) -> Wish:
    """With care: bind what is free, invalidate what is valid, register what is not."""
    memory = here.memory
    free = [mw.name for mw in memory.mws.values() if not mw.valid and not mw.closing.asked]
    if wish.kind == "bind" and not free:
        return replace(wish, kind="invalidate", flags=())
    fresh = [name for name in FAST_BASE if not memory.mrs[name].valid and not memory.mrs[name].closing.asked]
    if wish.kind == "fast_register" and not fresh:
        return replace(wish, kind="invalidate", flags=())
    if wish.kind == "invalidate" and len(free) + len(fresh) == 4:
        return replace(wish, kind="bind")
    return wish


def calmed(wish: Wish) -> Wish:
    """The same without what is wrong on purpose."""
    wrong = wish.pages in (WRONG_HERE, WRONG_THERE) or EDGES.get(wish.pages, ("", 0))[1] == 1
    remote = replace(wish.remote, name="rw") if wish.remote.name == "alien" else wish.remote
    takes = "" if wish.takes in ("alien", "bogus") else wish.takes
    return replace(wish, careful=True, pages=(1, 0) if wrong else wish.pages, remote=remote, takes=takes)


def _make_atomic(here: ModelEnd, there: ModelEnd, wish: Wish, post: Posted) -> None:
    """With care: 8 octets of sink in up to two SGEs, an address at a multiple of 8, mostly a comparison that holds."""
    careful = wish.careful
    chosen = careful and wish.pages != WRONG_THERE
    name = _remote_name(there, wish.remote.name, careful=chosen, right=ATOMIC)
    if wish.pages == WRONG_THERE and name == "at":
        name = "rw"  # which lacks this right
    post.token, post.address = _remote_place(there, wish.remote, name, careful=careful, size=8, resort="at")
    post.operands = wish.operands
    spots_ = wish.spots
    if careful:
        sizes = (8,) if len(spots_) < 2 else (3, 5)
        spots_ = tuple(
            replace(spot, length=size) for spot, size in zip(spots_ or (Spot("rw", 0, 8),), sizes, strict=False)
        )
        extent = there.memory.extent(post.token)
        post.address -= post.address % 8
        post.address += 8 if extent is not None and post.address < extent[0] else 0
        with suppress(Denied):
            octets = there.memory.get(there.memory.remote(post.token, there.qp, post.address, 8, ATOMIC))
            if post.kind == "compare_swap" and wish.pages[0] == 0:
                compare, swap, compare_mask, swap_mask = wish.operands
                compare = number_in(octets) & compare_mask | compare & ~compare_mask
                post.operands = (compare, swap, compare_mask, swap_mask)
        post.address += 4 if wish.pages == ODD else 0
    elif len(spots_) == 3:
        post.operands = (*wish.operands[:-1], 1 << 64)
    post.sges = local_sges(here, spots_, careful=careful and wish.pages != WRONG_HERE, write=True)


def make(here: ModelEnd, there: ModelEnd, wish: Wish, context: int, *, defer: bool) -> Posted:
    """The request that `wish` comes to as things stand at its owner and at the peer."""
    if wish.careful:
        wish = _better(here, wish)
    flags = 0
    for flag in wish.flags:
        flags |= int(flag)
    if not wish.careful and len(wish.spots) == 4:
        flags |= int(OpFlag.ALLOW_LOCAL_WRITE if wish.kind != "fast_register" else OpFlag.INLINE)
    if defer:
        flags |= int(OpFlag.DEFER)
    post = Posted(wish.kind, context, flags)
    careful = wish.careful
    if wish.kind in ("send", "write", "read"):
        chosen = careful and wish.pages != WRONG_HERE
        post.sges = local_sges(here, wish.spots, careful=chosen, write=wish.kind == "read")
        if wish.inline:
            size = sum(spot.length for spot in wish.spots)
            size = min(size, 64) if careful else size
            post.inline = bytes((post.context + index) % 256 for index in range(size))
            post.sges = ()
            post.flags |= int(OpFlag.INLINE) if size % 2 else 0
        if post.kind == "read" and careful and flags & OpFlag.RDMA_READ_LOCAL_INVALIDATE:
            fast = [sge for sge in post.sges if sge.token[2:4] == "fr"]
            post.sges = (*fast, *(sge for sge in post.sges if sge not in fast))
            if not fast:
                post.flags &= ~int(OpFlag.RDMA_READ_LOCAL_INVALIDATE)
        if post.kind == "send":
            chosen = careful and wish.pages != WRONG_THERE
            name = _remote_name(there, wish.takes, careful=chosen, right=None)
            post.token = _remote_place(there, wish.remote, name, careful=False, size=0)[0] if name else ""
        else:
            right = WRITE if wish.kind == "write" else READ
            chosen = careful and wish.pages != WRONG_THERE
            name = _remote_name(there, wish.remote.name, careful=chosen, right=right)
            if wish.pages == WRONG_THERE and name == "rw":
                name = "ro" if right == WRITE else "lo"  # which lacks this right
            post.token, post.address = _remote_place(there, wish.remote, name, careful=careful, size=post.size)
    elif wish.kind == "send_immediate":
        post.inline = bytes((context + index) % 256 for index in range(8 if careful else len(wish.spots) + 6))
    elif wish.kind in ATOMICS:
        _make_atomic(here, there, wish, post)
    elif wish.kind == "bind":
        spot = wish.remote
        post.target = spot.name if spot.name in here.memory.mrs else "rw"
        post.mw = "w1" if wish.inline or spot.name == "w1" else "w0"
        base = FAST_BASE[post.target] + 100 if post.target in FAST_BASE else RIGHTS[post.target][0]
        post.address, post.length = base + spot.offset, spot.length
        if careful:
            if here.memory.mws[post.mw].valid:
                post.mw = "w0" if post.mw == "w1" else "w1"
            if not here.memory.mrs[post.target].valid or not here.memory.mrs[post.target].own_pd:
                post.target = "rw"
                post.address = RIGHTS["rw"][0] + spot.offset
            post.length = max(1, min(spot.length, SIZE - spot.offset))
            if not rights_of(flags) & REMOTE:
                post.flags |= int(OpFlag.ALLOW_REMOTE_READ)
    elif wish.kind == "fast_register":
        post.target = "fr1" if wish.remote.name in ("fr1", "lo", "w1") else "fr0"
        if careful and here.memory.mrs[post.target].valid:
            post.target = "fr0" if post.target == "fr1" else "fr1"
        lam = "lam1" if len(wish.spots) == 2 else "lam0"
        start, fbo, size = LAMS[lam][0], LAMS[lam][1] % 4096, LAMS[lam][2]
        pages = wish.pages[: 1 if post.target == "fr1" else 2] if careful else wish.pages
        if lam == "lam1" and careful:
            pages = (0,) if len(pages) == 1 else (0, 1)
        post.pages = tuple(start + page * 4096 for page in pages)
        post.fbo = fbo if lam == "lam1" else (wish.remote.offset if wish.remote.offset < 900 else 100)
        post.length = min(1200, size) if careful or len(wish.spots) < 3 else 4096 * len(pages) + 10
        post.address = FAST_BASE[post.target] + post.fbo + (1 if not careful and len(wish.spots) == 1 else 0)
        if careful and post.target == "fr1":
            post.flags &= ~int(OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_ATOMIC | 0x20)
    else:
        names = ["fr0", "fr1", "w0", "w1", "rw"]
        valid = [mr.name for mr in here.memory.mrs.values() if mr.valid and mr.name in names]
        valid += [mw.name for mw in here.memory.mws.values() if mw.valid and mw.name in names]
        choice = [name for name in valid if name != "rw"] if careful else names
        post.target = (choice or ["fr0"])[len(wish.spots) % len(choice or [0])]
    _to_the_edge(here, there, wish, post)
    return post
