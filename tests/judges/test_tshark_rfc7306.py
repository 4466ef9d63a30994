"""tshark reads the immediate data and the atomics that two adapters exchange: the same operations, the same numbers."""

from pathlib import Path

import pytest

from softndk import MrFlag, OpFlag
from softndk.testing import pair
from softndk.trace import read_frames
from tests.ndk.ends import succeed
from tests.tshark_judge import CHECKSUMS, judge

pytestmark = pytest.mark.judge

P = "iwarp_rdma.atomic."


def numbers(fields: dict[str, str]) -> dict[str, int]:
    """The fields of an atomic, without what they have in front of their names."""
    return {name.removeprefix(P): int(text, 0) for name, text in fields.items() if name.startswith(P)}


def test_what_two_adapters_exchange_is_read_as_that(tmp_path: Path) -> None:
    path = tmp_path / "atomics.pcapng"
    with pair(trace=path) as (a, b):
        mr = b.pd.register_mr(bytearray(16), MrFlag.ALLOW_REMOTE_ATOMIC)
        b.qp.receive([])
        b.qp.receive([])
        a.qp.send_immediate(0x1122334455667788)
        a.qp.send_immediate(b"8 octets", flags=OpFlag.SEND_AND_SOLICIT_EVENT)
        a.qp.fetch_add(a.mr[0:8], mr.address, mr.remote_token, 1 << 40, mask=1 << 63)
        succeed(a.cq, 3)
        a.qp.compare_swap(a.mr[0:8], mr.address, mr.remote_token, 1 << 40, 9, compare_mask=0xFF << 40, swap_mask=0xFFFF)
        succeed(a.cq)
        succeed(b.cq, 2)
        address, token = mr.address, mr.remote_token
    verdict = judge(path, *CHECKSUMS)
    names = [
        "Immediate Data",
        "Immediate Data with SE",
        "Atomic Request",
        "Atomic Response",
        "Atomic Request",
        "Atomic Response",
    ]
    wanted = {*names}
    assert [name for name in verdict.names if name in wanted] == names
    assert verdict.complaints == []
    assert set(verdict.crcs) == {"good"}
    shown = {frame.kind for frame in read_frames(path)}
    assert wanted <= shown

    atomics = [numbers(operation.fields) for operation in verdict.operations if operation.name.startswith("Atomic")]
    add, first, swap, second = atomics
    place = {"remote_stag": token, "remote_tagged_offset": address}
    assert add.items() >= {"opcode": 0, "add_data": 1 << 40, "add_mask": 1 << 63, **place}.items()
    assert swap.items() >= {"opcode": 2, "swap_data": 9, "swap_mask": 0xFFFF, **place}.items()
    assert swap.items() >= {"compare_data": 1 << 40, "compare_mask": 0xFF << 40}.items()
    assert first.items() >= {"original_request_identifier": add["request_identifier"]}.items()
    assert first["original_remote_data_value"] == 0
    assert second["original_remote_data_value"] == 1 << 40
    assert second["original_request_identifier"] == swap["request_identifier"]

    lines = {frame.kind: frame.summary for frame in read_frames(path)}
    assert lines["Immediate Data"] == "MSN 1 data 1122334455667788 L"
    assert f"data {b'8 octets'.hex()}" in lines["Immediate Data with SE"]
    assert "CmpSwap 0x9/0xffff if 0x10000000000/0xff0000000000" in lines["Atomic Request"]
    assert f"original {1 << 40}" in lines["Atomic Response"]
