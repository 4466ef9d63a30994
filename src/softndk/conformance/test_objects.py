"""Objects: what they carry, how they are made, and that nothing inside depends on what the program can replace."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn
from uuid import uuid4

import pytest

from softndk import (
    AdapterFlag,
    AddressUnavailable,
    CqNotify,
    InvalidHandle,
    InvalidParameter,
    LogicalAddressMapping,
    MrFlag,
    NdkObject,
    NdkVersion,
    NotSupported,
    ObjectType,
    OperationType,
    OpFlag,
    RdmaTechnology,
    Status,
)
from softndk.conformance.bench import PATIENCE_S, Bench, Pair, refused
from softndk.conformance.providers import Feature, Side, advertised

FUNCTIONS = {
    ObjectType.ADAPTER: (
        "query_info create_cq create_pd create_shared_endpoint create_connector create_listener build_lam"
    ),
    ObjectType.CQ: "resize arm get_results control_interrupt_moderation",
    ObjectType.PD: "create_mr create_mw create_srq create_qp create_qp_with_srq privileged_token",
    ObjectType.MR: "register deregister initialize_fast_register remote_token local_token",
    ObjectType.MW: "remote_token",
    ObjectType.SRQ: "modify receive",
    ObjectType.QP: "flush send receive bind fast_register invalidate read write send_and_invalidate",
    ObjectType.SHARED_ENDPOINT: "local_address",
    ObjectType.CONNECTOR: (
        "connect connect_with_shared_endpoint complete_connect accept reject connection_data local_address peer_address"
        " disconnect"
    ),
    ObjectType.LISTENER: "listen local_address control_connect_events",
}
"""NDKPI's function tables. Every object has a close and a query for extensions besides."""


@pytest.fixture
def one_of_each(bench: Bench) -> dict[ObjectType, NdkObject]:
    """One object of each type that the adapter can make."""
    end = bench.end()
    adapter, pd = end.adapter, end.pd
    found: list[NdkObject] = [adapter, end.cq, pd, end.mr, pd.create_mw(), end.qp]
    found += [adapter.create_connector(), adapter.create_listener()]
    found.append(adapter.create_shared_endpoint((bench.provider.addresses(Side.ACTIVE)[0], 0)))
    if Feature.SRQ in advertised(adapter):
        found.append(pd.create_srq(4))
    return {item.object_type: item for item in found}


@pytest.mark.rules("R-OBJ-4", "E-9")
def test_every_function_of_the_tables_is_there(one_of_each: dict[ObjectType, NdkObject]) -> None:
    for kind, item in one_of_each.items():
        names = {"close", "query_extension", *FUNCTIONS[kind].split()}
        assert names <= set(dir(type(item))), kind
    assert {"pages", "fbo", "length", "release"} <= {
        *dir(LogicalAddressMapping),
        *LogicalAddressMapping.__annotations__,
    }


@pytest.mark.rules("R-OBJ-2", "R-OPEN-2", "A-20")
@pytest.mark.parametrize("asked", [NdkVersion(1, 0), NdkVersion(2, 0)])
def test_an_object_carries_its_type_and_the_version_of_its_adapter(bench: Bench, asked: NdkVersion) -> None:
    adapter = bench.adapter(version=asked)
    agreed = adapter.query_info().version
    pd, cq = adapter.create_pd(), adapter.create_cq(4)
    qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    made: dict[NdkObject, ObjectType] = {
        adapter: ObjectType.ADAPTER,
        pd: ObjectType.PD,
        cq: ObjectType.CQ,
        qp: ObjectType.QP,
        pd.create_mr(): ObjectType.MR,
        pd.create_mr(fast_register=True): ObjectType.MR,
        pd.create_mw(): ObjectType.MW,
        adapter.create_connector(): ObjectType.CONNECTOR,
        adapter.create_listener(): ObjectType.LISTENER,
        adapter.create_shared_endpoint((bench.provider.addresses(Side.ACTIVE)[0], 0)): ObjectType.SHARED_ENDPOINT,
    }
    if Feature.SRQ in advertised(adapter):
        made[pd.create_srq(1)] = ObjectType.SRQ
    assert {item: item.object_type for item in made} == made
    assert {item.version for item in made} == {agreed}


@pytest.mark.rules("R-OBJ-1", "R-PD-1")
@pytest.mark.parametrize("what", ["create_mr", "create_mw", "create_srq", "create_qp"])
def test_nothing_is_made_on_a_pd_that_has_gone(bench: Bench, what: str) -> None:
    end = bench.end()
    pd = end.adapter.create_pd()
    pd.close().result(PATIENCE_S)
    queues: dict[str, Any] = {"receive_queue_depth": 1, "initiator_queue_depth": 1}
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "create_srq": ((1,), {}),
        "create_qp": ((end.cq, end.cq), queues),
    }
    positional, named = arguments.get(what, ((), {}))
    with refused(InvalidHandle, Status.INVALID_HANDLE):
        getattr(pd, what)(*positional, **named)


@pytest.mark.rules("R-OBJ-1")
def test_nothing_is_made_from_an_antecedent_that_has_gone(bench: Bench) -> None:
    end = bench.end()
    gone = end.adapter.create_cq(4)
    gone.close().result(PATIENCE_S)
    for cqs in ((gone, end.cq), (end.cq, gone)):
        with refused(InvalidHandle, Status.INVALID_HANDLE):
            end.pd.create_qp(*cqs, receive_queue_depth=1, initiator_queue_depth=1)
    connector = end.adapter.create_connector()
    end.qp.close().result(PATIENCE_S)
    with refused(InvalidHandle, Status.INVALID_HANDLE):
        connector.connect(end.qp, bench.nobody(end.adapter))


@pytest.mark.rules("R-EXT-1")
def test_there_is_no_extension(one_of_each: dict[ObjectType, NdkObject]) -> None:
    for item in one_of_each.values():
        with refused(NotSupported, Status.NOT_SUPPORTED):
            item.query_extension(uuid4(), NdkVersion(1, 0))


@pytest.mark.rules("R-CREATE-2")
def test_a_creation_that_fails_leaves_nothing(bench: Bench) -> None:
    end = bench.end()
    before = end.adapter.open_objects
    info = end.adapter.query_info()
    host = bench.provider.addresses(Side.ACTIVE)[0]
    taken = end.adapter.create_shared_endpoint((host, 0))
    for create in (
        lambda: end.adapter.create_cq(info.max_cq_depth + 1),
        lambda: end.pd.create_srq(info.max_srq_depth + 1),
        lambda: end.pd.create_qp(
            end.cq, end.cq, receive_queue_depth=info.max_receive_queue_depth + 1, initiator_queue_depth=1
        ),
    ):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            create()
    with refused(AddressUnavailable, Status.SHARING_VIOLATION):
        end.adapter.create_shared_endpoint(taken.local_address)
    assert set(end.adapter.open_objects) == {*before, taken}


@pytest.mark.rules("R-CREATE-6", "R-CREATE-2")
def test_a_new_object_may_be_used_at_once_and_inside_a_callback(bench: Bench) -> None:
    adapter = bench.adapter()
    done = threading.Event()
    told: list[object] = []

    def use(_: object) -> None:
        pd, cq = adapter.create_pd(), adapter.create_cq(2)
        qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1, context="made here")
        mr = pd.register_mr(bytearray(8))
        qp.receive(mr[0:8], context="posted here")
        qp.flush()
        told.extend((result.qp_context, result.request_context) for result in cq.get_results())
        done.set()

    adapter.create_pd().close(on_done=use)
    assert done.wait(PATIENCE_S)
    assert told == [("made here", "posted here")]


@contextmanager
def replaced(functions: dict[NdkObject, str]) -> Iterator[list[str]]:
    """Inside, public functions of these objects' classes are traps; yields the names of those that were called."""
    called: list[str] = []
    with pytest.MonkeyPatch.context() as patches:
        for item, names in functions.items():
            for name in names.split():

                def trap(*_: object, full_name: str = f"{type(item).__name__}.{name}", **__: object) -> NoReturn:
                    called.append(full_name)
                    raise AssertionError(f"{full_name} was called from inside")

                original = getattr(type(item), name)
                patches.setattr(type(item), name, property(trap) if isinstance(original, property) else trap)
        yield called


@pytest.mark.rules("R-OBJ-3")
def test_nothing_inside_goes_through_functions_that_the_program_may_have_replaced(bench: Bench) -> None:
    """Connecting, registering, waiting and closing are made of several of NDKPI's functions; these are replaced."""
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    connector, listener = a.adapter.create_connector(), b.adapter.create_listener()
    functions: dict[NdkObject, str] = {
        a.adapter: "create_cq create_pd create_connector create_listener query_info build_lam close closing closed",
        a.pd: "create_mr create_mw create_qp privileged_token",
        a.mr: "register deregister local_token remote_token address length",
        a.cq: "get_results arm resize depth status next_results",
        connector: "connect complete_connect reject disconnect local_address peer_address connection_data",
        listener: "listen",
        a.qp: "flush context connector",
    }
    outcome: list[object] = []
    with replaced(functions) as called, suppress(AssertionError):
        listening = b.adapter.listen()
        connecting = a.adapter.connect(a.qp, listening.local_address)
        incoming = listening.next_request().result(PATIENCE_S)
        incoming.accept(b.qp).result(PATIENCE_S)
        connecting.result(PATIENCE_S)
        a.pd.register_mr(bytearray(8))
        a.qp.send(b"x")
        outcome += [result.status for result in a.cq.wait(PATIENCE_S)]
        outcome += [bool(repr(item)) for item in (a.qp, a.cq, a.mr, incoming, listening)]
        a.adapter.__exit__(None, None, None)
        b.adapter.__exit__(None, None, None)
    assert called == []
    assert outcome == [Status.SUCCESS, *[True] * 5]


@pytest.mark.rules("R-FLAG-1", "E-1", "E-7", "E-14")
def test_constants_have_the_numbers_of_the_header() -> None:
    numbers = {
        OpFlag: {
            "SILENT_SUCCESS": 0x001,
            "READ_FENCE": 0x002,
            "SEND_AND_SOLICIT_EVENT": 0x004,
            "ALLOW_REMOTE_READ": 0x008,
            "ALLOW_LOCAL_WRITE": 0x010,
            "ALLOW_REMOTE_WRITE": 0x030,
            "INLINE": 0x040,
            "RDMA_READ_SINK": 0x080,
            "RDMA_READ_LOCAL_INVALIDATE": 0x100,
            "DEFER": 0x200,
        },
        MrFlag: {
            "ALLOW_LOCAL_READ": 0,
            "ALLOW_LOCAL_WRITE": 1,
            "ALLOW_REMOTE_READ": 2,
            "ALLOW_REMOTE_WRITE": 5,
            "RDMA_READ_SINK": 8,
        },
        CqNotify: {"ERRORS": 0, "ANY": 1, "SOLICITED": 2},
        OperationType: {
            "RECEIVE": 1,
            "SEND": 2,
            "FAST_REGISTER": 4,
            "BIND": 8,
            "INVALIDATE": 16,
            "READ": 32,
            "WRITE": 64,
            "RECEIVE_AND_INVALIDATE": 0x8001,
        },
        AdapterFlag: {
            "IN_ORDER_DMA_SUPPORTED": 0x1,
            "RDMA_READ_SINK_NOT_REQUIRED": 0x2,
            "CQ_INTERRUPT_MODERATION_SUPPORTED": 0x4,
            "MULTI_ENGINE_SUPPORTED": 0x8,
            "RDMA_READ_LOCAL_INVALIDATE_SUPPORTED": 0x10,
            "CQ_RESIZE_SUPPORTED": 0x100,
            "LOOPBACK_CONNECTIONS_SUPPORTED": 0x10000,
        },
        RdmaTechnology: {"UNDEFINED": 0, "IWARP": 1, "INFINIBAND": 2, "ROCE": 3, "ROCE_V2": 4},
    }
    for kind, values in numbers.items():
        assert {name: kind[name].value for name in values} == values, kind


@pytest.mark.rules("R-FLAG-1")
def test_half_of_the_flag_for_remote_write_is_no_flag(both: Pair) -> None:
    """0x20 alone is unknown, and 0x10 is another flag, which a bind does not list."""
    a, _ = both
    window = a.pd.create_mw()
    for flags in (0x20, 0x20 | OpFlag.ALLOW_REMOTE_READ, 0x10 | OpFlag.ALLOW_REMOTE_READ):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            a.qp.bind(a.mr, window, flags=flags)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.pd.create_mr().register(bytearray(8), 0x4)


REQUESTS: dict[str, tuple[int, Callable[[Pair, int], None]]] = {
    "send": (0x247, lambda both, flags: both.a.qp.send([], flags=flags)),
    "send_and_invalidate": (
        0x247,
        lambda both, flags: both.a.qp.send_and_invalidate([], both.b.mr.remote_token, flags=flags),
    ),
    "write": (0x243, lambda both, flags: both.a.qp.write([], 0, both.b.mr.remote_token, flags=flags)),
    "read": (0x303, lambda both, flags: both.a.qp.read([], 0, both.b.mr.remote_token, flags=flags)),
    "bind": (0x23B, lambda both, flags: both.a.qp.bind(both.a.mr, both.a.pd.create_mw(), flags=flags)),
    "fast_register": (
        0x2BB,
        lambda both, flags: both.a.qp.fast_register(
            both.a.pd.create_mr(fast_register=True), [0], fbo=0, length=1, base_address=0, flags=flags
        ),
    ),
    "invalidate": (0x203, lambda both, flags: both.a.qp.invalidate(both.a.pd.create_mw(), flags=flags)),
}
"""Which flags each request lists, and how it is posted."""


@pytest.mark.rules("R-FLAG-3", "R-SEND-1", "R-READ-1", "R-WRITE-1", "R-BIND-1", "R-FREG-1", "R-INV-1", "E-3", "E-8")
@pytest.mark.parametrize("name", REQUESTS)
def test_a_flag_that_a_request_does_not_list_is_refused(both: Pair, name: str) -> None:
    listed, post = REQUESTS[name]
    for bit in range(16):  # a provider's own flags begin at 0x10000
        if not listed & 1 << bit:
            with refused(InvalidParameter, Status.INVALID_PARAMETER):
                post(both, 1 << bit)


@pytest.mark.rules("R-FLAG-2")
def test_receives_take_no_flags(both: Pair) -> None:
    receive: Callable[..., None] = both.a.qp.receive
    with pytest.raises(TypeError):
        receive([], flags=0)


@pytest.mark.rules("R-FLAG-2")
@pytest.mark.requires(Feature.SRQ)
def test_shared_receives_take_no_flags(bench: Bench) -> None:
    receive: Callable[..., None] = bench.end().pd.create_srq(1).receive
    with pytest.raises(TypeError):
        receive([], flags=0)
