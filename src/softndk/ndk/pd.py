"""Protection domain (NDK_PD): parent of regions, windows and queue pairs; tokens work only inside one."""

from typing import Any

from softndk.errors import InvalidParameter
from softndk.flags import LocalToken, MrFlag, ObjectType
from softndk.memory.buffers import Mdl, Memory, byte_view
from softndk.memory.tokens import ProtectionDomain, Scope, TokenEntry
from softndk.ndk.context import AdapterContext
from softndk.ndk.cq import Cq
from softndk.ndk.mr import Mr
from softndk.ndk.mw import Mw
from softndk.ndk.object import NdkObject
from softndk.ndk.qp import Qp

__all__ = ["Pd"]


class Pd(NdkObject):
    """See the module. Made by Adapter.create_pd."""

    _type = ObjectType.PD
    _prefix = "pd"

    def __init__(self, context: AdapterContext, adapter: NdkObject) -> None:
        super().__init__(context, [adapter])
        self._domain = ProtectionDomain(self._label)
        self._privileged: TokenEntry | None = None

    @property
    def privileged_token(self) -> LocalToken:
        """Token for SGEs with logical addresses of build_lam: local read and write, never remote (R-PRIV-1 to -3)."""
        with self._lock:
            self._check_usable("privileged_token")
            if self._privileged is None:
                self._privileged = self._context.datapath.tokens.create(Scope.PRIVILEGED, self._domain, self._label)
            return LocalToken(self._privileged.stag)

    def create_mr(self, *, fast_register: bool = False) -> Mr:
        """A region object, not registered yet (NdkCreateMr). fast_register: for fast registers only (R-MR-1)."""
        with self._lock:
            self._check_usable("create_mr")
            return Mr(self._context, self, self._domain, fast_register=fast_register)

    def register_mr(self, buffer: Memory | Mdl, flags: int | None = None, *, length: int | None = None) -> Mr:
        """Create and register in one step.

        flags: MrFlag; left out: local write if the buffer is writable, else local read; never a remote right.
        The buffer's export is held until deregistration or close. Raises: as Mr.register; nothing is left then.
        """
        if flags is None:
            writable = not (
                buffer.byte_range(buffer.length).readonly
                if isinstance(buffer, Mdl)
                else byte_view(buffer, "register_mr").readonly
            )
            flags = MrFlag.ALLOW_LOCAL_WRITE if writable else MrFlag.ALLOW_LOCAL_READ
        mr = self.create_mr()
        try:
            mr.register(buffer, flags, length=length).result(0)
        except BaseException:
            mr.close()
            raise
        return mr

    def create_mw(self) -> Mw:
        """A memory window, invalid until bound (NdkCreateMw, R-MW-1)."""
        with self._lock:
            self._check_usable("create_mw")
            return Mw(self._context, self, self._domain)

    def create_qp(
        self,
        receive_cq: Cq,
        initiator_cq: Cq,
        *,
        receive_queue_depth: int,
        initiator_queue_depth: int,
        max_receive_sge: int = 1,
        max_initiator_sge: int = 1,
        inline_data_size: int = 256,
        context: Any = None,
    ) -> Qp:
        """A queue pair (NdkCreateQp). Depths in requests outstanding; inline_data_size in octets.

        Raises: InvalidParameter: a value above its limit in AdapterInfo (names the limit), or a CQ of another adapter.
        """
        info = self._context.info
        limits = (
            ("receive_queue_depth", receive_queue_depth, 0, info.max_receive_queue_depth),
            ("initiator_queue_depth", initiator_queue_depth, 0, info.max_initiator_queue_depth),
            ("max_receive_sge", max_receive_sge, 0, info.max_receive_request_sge),
            ("max_initiator_sge", max_initiator_sge, 0, info.max_initiator_request_sge),
            ("inline_data_size", inline_data_size, 0, info.max_inline_data_size),
        )
        with self._lock:
            self._check_usable("create_qp")
            for name, value, low, high in limits:
                check_limit(f"{self._label} create_qp", name, value, low, high)
            for name, cq in (("receive_cq", receive_cq), ("initiator_cq", initiator_cq)):
                if not isinstance(cq, Cq):
                    raise TypeError(f"{self._label} create_qp: {name} is a {type(cq).__name__}, not a Cq")
                if cq._context is not self._context:
                    raise InvalidParameter(
                        f"{self._label} create_qp: {name} {cq._label} belongs to another adapter"
                        " [INVALID_PARAMETER, R-QP-5]"
                    )
                cq._check_usable("create_qp")
            return Qp(
                self._context,
                self,
                self._domain,
                receive_cq,
                initiator_cq,
                receive_depth=receive_queue_depth,
                initiator_depth=initiator_queue_depth,
                max_receive_sge=max_receive_sge,
                max_initiator_sge=max_initiator_sge,
                inline_data_size=inline_data_size,
                context=context,
            )

    def _renamed(self) -> None:
        self._domain.name = self._label

    def _finish_close(self) -> None:
        if self._privileged is not None:
            self._context.datapath.tokens.remove(self._privileged)


def check_limit(who: str, name: str, value: int, low: int, high: int) -> None:
    """Raise unless `value` is an int from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{who}: {name}={value!r} is not an int")
    if not low <= value <= high:
        raise InvalidParameter(
            f"{who}: {name}={value}, limit {high if value > high else low} (see query_info) [INVALID_PARAMETER]"
        )
