"""The target `adapter`: what makes its findings worth something. Runs again are the same; documented is what is written."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the target adapter is for Linux", allow_module_level=True)

from fuzz import documented, era
from fuzz.hostile import Hostile
from fuzz.stepped import open_stepped
from fuzz.targets import TARGETS
from softndk import IwarpConfig


def octets_of_a_run(data: bytes, patch: pytest.MonkeyPatch) -> list[bytes]:
    """What the peers get, in new adapters."""
    found: list[bytes] = []
    look = Hostile._look_at

    def noting(hostile: Hostile, octets: bytes) -> None:
        found.append(octets)
        look(hostile, octets)

    era.end()
    with patch.context() as context:
        context.setattr(Hostile, "_look_at", noting)
        TARGETS["adapter"].check(data)
    return found


def test_an_input_is_one_order_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and addresses included."""
    for data in TARGETS["adapter"].seeds()[:60:15]:
        first = octets_of_a_run(data, monkeypatch)
        assert first
        assert octets_of_a_run(data, monkeypatch) == first


def test_time_limits_cost_no_time() -> None:
    """The clock is a number: the connect below times out when it says so, and neither before nor later."""
    adapter, runtime = open_stepped("127.0.0.1", IwarpConfig(connect_timeout_s=1000.0))
    engine = runtime.stepped
    pd, cq = adapter.create_pd(), adapter.create_cq(4)
    silent = adapter.listen()
    silent.control_connect_events(pause=False)
    qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    connecting = adapter.connect(qp, silent.local_address)
    engine.clock += 999.0
    engine.step()
    assert not connecting.done()
    engine.clock += 2.0
    while engine.step() + runtime.callbacks.run():
        continue
    assert connecting.exception(0) is not None
    adapter._close_tree()
    while not engine.ended:
        engine.clock += 1.0
        engine.step()
        runtime.callbacks.run()


def test_what_is_documented_is_read_with_its_references() -> None:
    send = documented.failures("Qp.send")
    assert ("QueueFull", "NO_MORE_ENTRIES") in send
    assert send < documented.failures("Qp.read")
    assert ("InvalidState", "INVALID_DEVICE_REQUEST") not in send
    assert documented.results("Qp.send_and_invalidate") == documented.results("Qp.send")
    assert documented.outcomes("Connector.connect") < documented.outcomes("Adapter.connect")
    assert documented.failures("Adapter.create_connector") < documented.failures("Adapter.connect")
