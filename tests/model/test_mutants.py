"""The state machine can fail: its mutants fit the code, and it notices one here. `python -m tests.model.mutants` tries all."""

from pathlib import Path

import pytest

from scripts.rules_mutants import Mutant
from softndk.queues.pair import QueuePair
from softndk.queues.work import Request
from softndk.status import Status
from tests.model.machine import MemoryMachine, run_round
from tests.model.mutants import BREAKS

SOURCE = Path(__file__).parents[2] / "src" / "softndk"


@pytest.mark.parametrize("mutant", BREAKS, ids=lambda mutant: f"{mutant.rule}: {mutant.what}")
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    text = (SOURCE / mutant.file).read_text(encoding="utf-8")
    assert mutant.applied_to(text) != text


def test_a_wrong_status_of_what_is_flushed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(pair: QueuePair, request: Request) -> None:
        request.fail(Status.INTERNAL_ERROR, "", pair.failure)

    monkeypatch.setattr(QueuePair, "_cancel", cancel)
    try:
        with pytest.raises(AssertionError, match="INTERNAL_ERROR"):
            run_round(MemoryMachine, 7, shrink=False)
    finally:
        MemoryMachine.carrier.close()
