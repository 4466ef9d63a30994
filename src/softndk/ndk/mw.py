"""Memory window (NDK_MW): a part of a region, lent to one peer until somebody takes it back."""

from softndk.flags import ObjectType, RemoteToken
from softndk.memory.regions import FastRegion, Region, Window
from softndk.memory.tokens import ProtectionDomain
from softndk.ndk.context import AdapterContext
from softndk.ndk.object import NdkObject

__all__ = ["Mw"]


class Mw(NdkObject):
    """See the module. Made by Pd.create_mw, made valid by Qp.bind."""

    _type = ObjectType.MW
    _prefix = "mw"

    def __init__(self, context: AdapterContext, pd: NdkObject, domain: ProtectionDomain) -> None:
        super().__init__(context, [pd])
        self._window = Window(context.datapath.tokens, domain, self._label)
        self._window.on_idle = self._settle_close
        self._left: Region | FastRegion | None = None

    @property
    def remote_token(self) -> RemoteToken:
        """Token to send to the peer; the same for the life of the window (A-7). It works from the bind on (R-MW-2)."""
        return RemoteToken(self._window.token.stag)

    def _renamed(self) -> None:
        self._window.rename(self._label)

    def _state_text(self) -> str:
        token = self._window.token
        if not token.valid:
            return "invalid"
        return f"{token.length} octets at {token.base:#x}"

    def _holding(self) -> list[str]:
        return [f"{self._window.posted} queued requests"] if self._window.posted else []

    def _finish_close(self) -> None:
        region = self._left = self._window.region
        if region is not None:
            region.leaving += 1
        self._window.destroy()

    def _release_all(self) -> None:
        super()._release_all()
        region, self._left = self._left, None
        if region is not None:  # an antecedent like the others (R-MW-4)
            region.leaving -= 1
