"""Providers that are not what they should be, for the tests of the conformance suite's plugin.

Each hands out adapters that delegate to softndk's own, except for the one thing that is wrong with it.
"""

from dataclasses import replace
from typing import Any

from softndk import Adapter, AdapterInfo, InvalidParameter, NdkVersion
from softndk.conformance.providers import NEWEST, PythonIwarp, Side


class _Wrapped:
    """Delegates everything."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Any:
        self._inner.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._inner.__exit__(*details)


class _PdWithoutSrq(_Wrapped):
    def create_srq(self, depth: int, **_: Any) -> Any:
        raise InvalidParameter(f"create_srq: depth={depth}, limit max_srq_depth=0 [INVALID_PARAMETER]")


class _AdapterWithoutSrq(_Wrapped):
    """Refuses shared receive queues; says so if `honest`."""

    honest = True

    def query_info(self) -> AdapterInfo:
        info: AdapterInfo = self._inner.query_info()
        return replace(info, max_srq_depth=0) if self.honest else info

    def create_pd(self) -> Any:
        return _PdWithoutSrq(self._inner.create_pd())


class _AdapterThatAdvertisesTooMuch(_AdapterWithoutSrq):
    honest = False


class _AdapterThatAdvertisesTooLittle(_Wrapped):
    """Says that it has no shared receive queues, and has them."""

    def query_info(self) -> AdapterInfo:
        info: AdapterInfo = self._inner.query_info()
        return replace(info, max_srq_depth=0)


class _Lying(PythonIwarp):
    wrapper: type[_Wrapped] = _AdapterWithoutSrq

    @property
    def name(self) -> str:
        return self.wrapper.__name__

    def open_adapter(
        self, side: Side = Side.ACTIVE, *, version: NdkVersion = NEWEST, hurry: bool = False, strict: bool = False
    ) -> Adapter:
        adapter: Any = self.wrapper(super().open_adapter(side, version=version, hurry=hurry, strict=strict))
        return adapter  # type: ignore[no-any-return]


def without_srq() -> _Lying:
    """No shared receive queues, and honest about it."""
    return _Lying()


def advertises_too_much() -> _Lying:
    """No shared receive queues, but advertised."""
    made = _Lying()
    made.wrapper = _AdapterThatAdvertisesTooMuch
    return made


def advertises_too_little() -> _Lying:
    """Shared receive queues that are not advertised."""
    made = _Lying()
    made.wrapper = _AdapterThatAdvertisesTooLittle
    return made


def cannot_be_made() -> _Lying:
    """Fails before there is anything to judge."""
    raise RuntimeError("the driver is not loaded")


class _OpensNothing(PythonIwarp):
    name = "no adapter"

    def open_adapter(
        self, side: Side = Side.ACTIVE, *, version: NdkVersion = NEWEST, hurry: bool = False, strict: bool = False
    ) -> Adapter:
        raise OSError("no such device")


def opens_nothing() -> _OpensNothing:
    """Its adapters cannot be opened."""
    return _OpensNothing()


class _AdapterWithoutInfo(_Wrapped):
    def query_info(self) -> AdapterInfo:
        raise NotImplementedError("query_info is not there yet")


def tells_no_info() -> _Lying:
    """Its adapters open, but do not say what they can do."""
    made = _Lying()
    made.wrapper = _AdapterWithoutInfo
    return made
