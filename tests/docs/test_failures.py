"""The page for 3 a.m. shows messages as they really come, and each way to fail that the tests know stands on it."""

import sys

import pytest

from softndk.cli.options import local_address_for
from tests.docs.failures import FAILURES
from tests.docs.markdown_pages import ROOT, blocks
from tests.docs.page_runner import assert_shown

PAGE = ROOT / "docs" / "howto" / "errors.md"
SHOWN = {name: block for block in blocks(PAGE) if (name := block.mark("message"))}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_says_what_the_page_shows(name: str) -> None:
    assert name in SHOWN, f"{PAGE.name} does not show {name}"
    if name == "dead-peer" and sys.platform != "linux":
        pytest.skip("elsewhere nobody looks for dead peers")
    if name == "loopback-to-elsewhere" and local_address_for(("192.0.2.1", 9)) is None:
        pytest.skip("no route to other machines on this machine")
    assert_shown(SHOWN[name].text, FAILURES[name]() + "\n", SHOWN[name].where)


def test_every_message_of_the_page_can_be_provoked() -> None:
    assert set(SHOWN) == set(FAILURES)
