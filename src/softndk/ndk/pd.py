"""Protection domain (NDK_PD): parent of regions, windows and queue pairs; tokens work only inside one."""

from collections.abc import Callable
from typing import Any

from softndk.drivers.dispatch import check_callback
from softndk.errors import InvalidParameter
from softndk.flags import MAXULONG, LocalToken, MrFlag, ObjectType
from softndk.memory.buffers import Mdl, Memory, byte_view
from softndk.memory.tokens import ProtectionDomain, Scope, TokenEntry
from softndk.ndk.context import AdapterContext
from softndk.ndk.cq import Cq
from softndk.ndk.limits import check_capacity, check_limit
from softndk.ndk.mr import Mr
from softndk.ndk.mw import Mw
from softndk.ndk.object import NdkObject
from softndk.ndk.qp import Qp
from softndk.ndk.srq import Srq
from softndk.status import Status

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
        """Token for SGEs with logical addresses of build_lam: local read and write, never remote (R-PRIV-1 to -3).

        The same for the life of the PD. Read sinks may use it (R-PRIV-4).
        """
        with self._lock:
            self._check_usable("privileged_token")
            if self._privileged is None:
                self._privileged = self._context.datapath.tokens.create(Scope.PRIVILEGED, self._domain, self._label)
            return LocalToken(self._privileged.stag)

    def create_mr(self, *, fast_register: bool = False) -> Mr:
        """A region object, not registered yet (NdkCreateMr).

        fast_register: for fast registers only, else for `register` only (R-MR-1).

        Raises: InsufficientResources: max_mr_count are open (R-CREATE-5). Nothing is made.
        """
        with self._lock:
            self._check_working("create_mr")
            return Mr(self._context, self, self._domain, fast_register=fast_register)

    def register_mr(self, buffer: Memory | Mdl, flags: int | None = None, *, length: int | None = None) -> Mr:
        """Create and register in one step.

        flags: MrFlag; left out: local write if the buffer is writable, else local read; never a remote right.
        The buffer's export is held until deregistration or close.

        Raises: as `create_mr`; as Mr.register. Nothing is left.
        """
        if flags is None:
            writable = not (
                buffer.byte_range(buffer.length).readonly
                if isinstance(buffer, Mdl)
                else byte_view(buffer, f"{self._label} register_mr").readonly
            )
            flags = MrFlag.ALLOW_LOCAL_WRITE if writable else MrFlag.ALLOW_LOCAL_READ
        with self._lock:
            self._check_working("register_mr")
            mr = Mr(self._context, self, self._domain, fast_register=False)
            try:
                mr._register(buffer, flags, length).result(0)
            except BaseException:
                mr._close()
                raise
            return mr

    def create_mw(self) -> Mw:
        """A memory window, invalid until bound (NdkCreateMw, R-MW-1).

        Raises: InsufficientResources: max_mw_count are open (R-CREATE-5). Nothing is made.
        """
        with self._lock:
            self._check_working("create_mw")
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

        receive_cq, initiator_cq: where its results go; may be the same (R-QP-3). max_receive_sge, max_initiator_sge: of
        one request. context: comes back in each result as qp_context. A depth of 0 makes a queue that takes nothing. None
        of it can be changed later (R-QP-2).

        Raises: InvalidParameter: a value above its limit in AdapterInfo (names the limit), or a CQ of another adapter
        (R-QP-5). InsufficientResources: max_qp_count are open (R-CREATE-5). Nothing is made.
        """
        return self._create_qp(
            "create_qp",
            receive_cq,
            initiator_cq,
            None,
            receive_depth=receive_queue_depth,
            initiator_depth=initiator_queue_depth,
            max_receive_sge=max_receive_sge,
            max_initiator_sge=max_initiator_sge,
            inline_data_size=inline_data_size,
            context=context,
        )

    def create_qp_with_srq(
        self,
        receive_cq: Cq,
        initiator_cq: Cq,
        srq: Srq,
        *,
        initiator_queue_depth: int,
        max_initiator_sge: int = 1,
        inline_data_size: int = 256,
        context: Any = None,
    ) -> Qp:
        """A queue pair whose receives come from `srq`, an SRQ of this PD (NdkCreateQpWithSrq). Arguments as create_qp.

        A message that finds the SRQ empty is held back, in TCP, until a receive is posted (R-SRQ-3).

        Raises: InvalidParameter: an SRQ of another PD (R-QP-5); as `create_qp` otherwise. Nothing is made.
        """
        if not isinstance(srq, Srq):
            raise TypeError(f"{self._label} create_qp_with_srq: {type(srq).__name__} is not an Srq")
        return self._create_qp(
            "create_qp_with_srq",
            receive_cq,
            initiator_cq,
            srq,
            receive_depth=0,
            initiator_depth=initiator_queue_depth,
            max_receive_sge=0,
            max_initiator_sge=max_initiator_sge,
            inline_data_size=inline_data_size,
            context=context,
        )

    def create_srq(
        self,
        depth: int,
        *,
        max_receive_sge: int = 1,
        notify_threshold: int = 0,
        on_notify: Callable[[Srq, Status], object] | None = None,
    ) -> Srq:
        """A shared receive queue for `depth` receives (NdkCreateSrq). on_notify(srq, status): called once when fewer than
        notify_threshold receives are queued after there were more (R-SRQ-1, A-12); 0: never. max_receive_sge: of one
        receive.

        Raises: InvalidParameter: depth 0 or over max_srq_depth, or max_receive_sge over max_receive_request_sge.
        InsufficientResources: max_srq_count are open (R-CREATE-5). TypeError: on_notify is a coroutine function. Nothing
        is made.
        """
        if on_notify is not None:
            check_callback(on_notify)
        info = self._context.info
        with self._lock:
            self._check_working("create_srq")
            who = f"{self._label} create_srq"
            check_capacity(who, "depth", depth, info, "max_srq_depth", least=1)
            check_capacity(who, "max_receive_sge", max_receive_sge, info, "max_receive_request_sge")
            check_limit(who, "notify_threshold", notify_threshold, 0, MAXULONG)
            return Srq(self._context, self, depth, max_receive_sge, notify_threshold, on_notify)

    def _create_qp(
        self,
        operation: str,
        receive_cq: Cq,
        initiator_cq: Cq,
        srq: Srq | None,
        *,
        receive_depth: int,
        initiator_depth: int,
        max_receive_sge: int,
        max_initiator_sge: int,
        inline_data_size: int,
        context: Any,
    ) -> Qp:
        info = self._context.info
        who = f"{self._label} {operation}"
        with self._lock:
            self._check_working(operation)
            check_capacity(who, "receive_queue_depth", receive_depth, info, "max_receive_queue_depth")
            check_capacity(who, "initiator_queue_depth", initiator_depth, info, "max_initiator_queue_depth")
            check_capacity(who, "max_receive_sge", max_receive_sge, info, "max_receive_request_sge")
            check_capacity(who, "max_initiator_sge", max_initiator_sge, info, "max_initiator_request_sge")
            check_capacity(who, "inline_data_size", inline_data_size, info, "max_inline_data_size")
            for name, cq in (("receive_cq", receive_cq), ("initiator_cq", initiator_cq)):
                if not isinstance(cq, Cq):
                    raise TypeError(f"{who}: {name} is a {type(cq).__name__}, not a Cq")
                if cq._context is not self._context:
                    raise InvalidParameter(
                        f"{who}: {name} {cq._label} belongs to another adapter [INVALID_PARAMETER, R-QP-5]"
                    )
                cq._check_usable(operation)
            if srq is not None:
                if self not in srq._antecedents:
                    raise InvalidParameter(f"{who}: {srq._label} belongs to another PD [INVALID_PARAMETER, R-QP-5]")
                srq._check_usable(operation)
            return Qp(
                self._context,
                self,
                self._domain,
                receive_cq,
                initiator_cq,
                receive_depth=receive_depth,
                initiator_depth=initiator_depth,
                max_receive_sge=max_receive_sge,
                max_initiator_sge=max_initiator_sge,
                inline_data_size=inline_data_size,
                context=context,
                srq=srq,
            )

    def _renamed(self) -> None:
        self._domain.name = self._label

    def _finish_close(self) -> None:
        if self._privileged is not None:
            self._context.datapath.tokens.remove(self._privileged)
