"""The page of supported features agrees with the package: what it calls there is there."""

import re

import pytest

import softndk
from tests.docs.markdown_pages import ROOT

PAGE = ROOT / "docs" / "reference" / "supported.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if re.match(r"\| (Open|Close|Ndk|OID_)\w+", line) and line.count("|") == 5
]


def test_the_table_has_all_functions_of_ndkpi() -> None:
    assert len(ROWS) >= 57
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_function_is_there_if_the_page_says_so(row: list[str]) -> None:
    _, python, state, remark = row
    assert state in ("yes", "partly", "no")
    if state == "no":
        assert not python
        return
    found: object = softndk
    for name in python.strip("`").split("."):
        found = getattr(found, name)
    assert state == "yes" or remark, "partly: in what?"


def test_no_member_of_an_object_is_missing_from_the_table() -> None:
    told = {row[1].strip("`") for row in ROWS} | CONVENIENCES
    for name in ("Adapter", "Pd", "Mr", "Mw", "Qp", "Srq", "Cq", "Connector", "Listener", "SharedEndpoint"):
        public = {f"{name}.{member}" for member in vars(getattr(softndk, name)) if not member.startswith("_")}
        assert public <= told, f"not in the table of {PAGE.name}: {sorted(public - told)}"


CONVENIENCES = {  # what Python adds
    "Adapter.connect",
    "Adapter.datapath",
    "Adapter.listen",
    "Adapter.open_objects",
    "Connector.disconnected",
    "Cq.depth",
    "Cq.fileno",
    "Cq.next_results",
    "Cq.status",
    "Cq.wait",
    "Listener.fileno",
    "Listener.next_request",
    "Mr.address",
    "Mr.length",
    "Mr.view",
    "Pd.register_mr",
    "Qp.connector",
    "Qp.context",
    "Srq.depth",
}


def test_reserved_names_are_refused_as_the_page_says() -> None:
    for transport in ("rocev2", "shm", "verbs"):
        with pytest.raises(softndk.NotSupported):
            softndk.open_adapter(transport=transport)
    with pytest.raises(softndk.NotSupported):
        softndk.open_adapter(network=object())


def test_every_point_left_open_that_the_code_names_is_on_the_page() -> None:
    names = {
        name
        for file in (ROOT / "src" / "softndk").rglob("*.py")
        for name in re.findall(r"\bA-\d+\b", file.read_text(encoding="utf-8"))
    }
    told = set(re.findall(r"^\| (A-\d+) \|", TEXT, re.MULTILINE))
    assert names <= told, f"{PAGE.name} does not explain {sorted(names - told)}"


def test_every_deviation_that_the_code_marks_is_on_the_page() -> None:
    """The mark is followed by a rule's name in the same paragraph, and the page has a row with that name."""
    section = TEXT.partition("## Deviations")[2].partition("\n## ")[0]
    for file in (ROOT / "src" / "softndk").rglob("*.py"):
        for paragraph in re.findall(r"Deviation:(.+?)(?:\n\s*\n|\"\"\")", file.read_text(encoding="utf-8"), re.DOTALL):
            rules = re.findall(r"R-[A-Z]+-\d+", paragraph)
            assert any(rule in section for rule in rules), f"{file.name}: Deviation:{paragraph}"
