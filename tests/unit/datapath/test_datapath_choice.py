"""Which data path an adapter gets: by name, by SOFTNDK_DATAPATH, or the best there is; never another than the named."""

import pytest

from softndk.datapath import open_datapath
from softndk.errors import NotSupported


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTNDK_DATAPATH", raising=False)


def test_by_name() -> None:
    assert open_datapath("python").name == "python"


def test_the_best_there_is() -> None:
    assert open_datapath(None).name == "python"


@pytest.mark.parametrize("value", ["", "python"])
def test_by_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOFTNDK_DATAPATH", value)
    assert open_datapath(None).name == "python"


def test_a_name_counts_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTNDK_DATAPATH", "abacus")
    assert open_datapath("python").name == "python"


def test_a_missing_one_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotSupported, match="datapath='abacus'"):
        open_datapath("abacus")
    monkeypatch.setenv("SOFTNDK_DATAPATH", "abacus")
    with pytest.raises(NotSupported, match="SOFTNDK_DATAPATH='abacus'"):
        open_datapath(None)


def test_each_has_its_own_tokens() -> None:
    assert open_datapath("python").tokens is not open_datapath("python").tokens
