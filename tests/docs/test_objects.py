"""The pages of the objects: every entry of NDKPI's dispatch tables and every public member has its place on one."""

import inspect
import re
from pathlib import Path

import pytest

import softndk
from scripts.docs.docstrings import parse
from scripts.docs.ndkpi import NdkpiObject, all_entries, objects, others, public_members, resolve
from scripts.docs.object_reference import EVERY_OBJECT_TOPICS, FOLDER
from softndk.conformance.rules import all_rules
from tests.docs.markdown_pages import ROOT, pages

PAGES = ROOT / FOLDER

TABLES = {  # ndkpi.h, in its order
    "NDK_ADAPTER_DISPATCH": "NdkQueryExtension NdkQueryAdapterInfo NdkCreateCq NdkCreatePd NdkCreateSharedEndpoint"
    " NdkCreateConnector NdkCreateListener NdkBuildLAM NdkReleaseLAM",
    "NDK_CQ_DISPATCH": "NdkCloseCq NdkQueryExtension NdkResizeCq NdkArmCq NdkGetCqResults"
    " NdkControlCqInterruptModeration NdkGetCqResultsEx",
    "NDK_PD_DISPATCH": "NdkClosePd NdkQueryExtension NdkCreateMr NdkCreateMw NdkCreateSrq NdkCreateQp NdkCreateQpWithSrq"
    " NdkGetPrivilegedMemoryRegionToken",
    "NDK_MR_DISPATCH": "NdkCloseMr NdkQueryExtension NdkRegisterMr NdkDeregisterMr NdkInitializeFastRegisterMr"
    " NdkGetRemoteTokenFromMr NdkGetLocalTokenFromMr",
    "NDK_MW_DISPATCH": "NdkCloseMw NdkQueryExtension NdkGetRemoteTokenFromMw",
    "NDK_SRQ_DISPATCH": "NdkCloseSrq NdkQueryExtension NdkModifySrq NdkSrqReceive",
    "NDK_QP_DISPATCH": "NdkCloseQp NdkQueryExtension NdkFlush NdkSend NdkReceive NdkBind NdkFastRegister NdkInvalidate"
    " NdkRead NdkWrite NdkSendAndInvalidate",
    "NDK_SHARED_ENDPOINT_DISPATCH": "NdkCloseSharedEndpoint NdkQueryExtension NdkGetLocalAddress",
    "NDK_CONNECTOR_DISPATCH": "NdkCloseConnector NdkQueryExtension NdkConnect NdkConnectWithSharedEndpoint"
    " NdkCompleteConnect NdkAccept NdkReject NdkGetConnectionData NdkGetLocalAddress NdkGetPeerAddress NdkDisconnect"
    " NdkCompleteConnectEx NdkAcceptEx",
    "NDK_LISTENER_DISPATCH": "NdkCloseListener NdkQueryExtension NdkListen NdkGetLocalAddress NdkControlConnectEvents",
}
OTHER_FUNCTIONS = {
    "OpenNDKAdapterHandler",
    "CloseNDKAdapterHandler",
    "WskOpenNdkAdapter",
    "WskCloseNdkAdapter",
    "NdkCreateCompletion",
    "NdkRequestCompletion",
    "NdkCloseCompletion",
    "NdkCqNotificationCallback",
    "NdkSrqNotificationCallback",
    "NdkConnectEventCallback",
    "NdkDisconnectEventCallback",
    "NdkDisconnectEventCallbackEx",
    "OID_NDK_STATISTICS",
    "OID_NDK_CONNECTIONS",
    "OID_NDK_LOCAL_ENDPOINTS",
    "OID_NDK_SET_STATE",
}
OBJECTS = list(objects().values())
CLASSES = [*(item.cls for item in OBJECTS), softndk.NdkObject, softndk.Pending]


def text_of(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def page_of(cls: type) -> str:
    return next((item.page for item in OBJECTS if item.cls is cls), "object")


@pytest.mark.parametrize("table", TABLES)
def test_the_data_has_every_entry_of_each_dispatch_table_in_its_order(table: str) -> None:
    (item,) = [item for item in OBJECTS if item.dispatch == table]
    assert [entry.name for entry in item.entries] == TABLES[table].split()


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.page)
def test_every_entry_stands_on_the_page_of_its_object(item: NdkpiObject) -> None:
    rows = re.findall(r"^\| (Ndk\w+) \|", text_of(item.page), re.MULTILINE)
    assert [entry.name for entry in item.entries] == rows


def test_the_data_has_the_functions_that_stand_in_no_table() -> None:
    told = {name for group in others().values() for entry in group.entries for name in entry.name.split(", ")}
    assert told == OTHER_FUNCTIONS


def test_every_python_name_of_the_data_exists_and_what_has_none_says_why() -> None:
    for entry in all_entries():
        assert bool(entry.python) != bool(entry.why), entry.name
        if entry.python:
            resolve(entry.python)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_member_has_its_place_on_the_page(cls: type) -> None:
    headings = set(re.findall(r"^### (.+)$", text_of(page_of(cls)), re.MULTILINE))
    special = {"__getitem__": "[a:b]", "__iter__": "for", "__aiter__": "async for", "__await__": "await"}
    wanted = {f"`{special.get(name, name)}`" for name in public_members(cls)}
    assert wanted <= headings, f"{page_of(cls)}.md lacks {sorted(wanted - headings)}"


def test_every_object_of_the_package_has_a_page() -> None:
    exported = {getattr(softndk, name) for name in softndk.__all__}
    kinds = {item for item in exported if isinstance(item, type) and issubclass(item, softndk.NdkObject)}
    assert kinds - {softndk.NdkObject} == {item.cls for item in OBJECTS} - {softndk.LogicalAddressMapping}


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.page)
def test_a_member_is_an_entry_of_ndkpi_or_says_why_it_is_there(item: NdkpiObject) -> None:
    standing_for = {entry.python.partition(".")[2] for entry in all_entries()}
    for name, member in public_members(item.cls).items():
        rfc = re.search(r"RFC \d+", inspect.getdoc(member) or "")  # an extension of the wire, beyond NDKPI
        told = name in standing_for or name in item.added or name.startswith("__") or rfc
        assert told, f"{item.cls.__name__}.{name}: say in scripts/docs/ndkpi.toml why NDKPI has no such function"
    assert item.added.keys() <= public_members(item.cls).keys()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_member_has_a_docstring_that_can_be_read(cls: type) -> None:
    for name, member in public_members(cls).items():
        parts = parse(member)
        assert parts.prose, f"{cls.__name__}.{name} has no docstring"
        lost = [text for text in parts.prose if re.search(r"\b(Raises|fails with)\b", text)]
        assert not lost, f"{cls.__name__}.{name}: begin a line with the label: {lost}"


@pytest.mark.parametrize(
    "name", ["send", "send_and_invalidate", "write", "read", "bind", "fast_register", "invalidate"]
)
def test_every_request_tells_what_its_call_raises_and_how_it_may_complete(name: str) -> None:
    parts = parse(getattr(softndk.Qp, name))
    assert parts.lists.keys() >= {"Raises", "Results"}
    references = any(item.when.startswith("as `send`") for items in parts.lists.values() for item in items)
    told = {item.name for item in parts.lists["Results"]}
    assert references or {"SUCCESS", "CANCELLED"} <= told


def test_every_rule_stands_on_some_page_of_an_object_or_is_no_rule_of_one() -> None:
    shown = {topic for item in OBJECTS for topic in item.topics} | set(EVERY_OBJECT_TOPICS)
    topics = {rule.topic for rule in all_rules().values()}
    assert topics - shown == {"Decisions", "Corrections"}
    assert shown <= topics


def test_the_reader_of_docstrings_notices_what_is_no_list() -> None:
    def wrong() -> None:
        """Do it.

        Raises: Whatever: never.
        """

    with pytest.raises(ValueError, match="Whatever"):
        parse(wrong)


def test_the_reader_of_docstrings_finds_failures_results_and_what_is_unchanged() -> None:
    def right() -> None:
        """Do it.

        Raises: QueueFull. InvalidState (CONNECTION_ACTIVE): in use, or
        used before; as `send` otherwise. Nothing is posted.
        Results: CANCELLED: flushed.
        """

    parts = parse(right)
    assert parts.prose == ["Do it."]
    raised = [(item.name, item.status, item.when) for item in parts.lists["Raises"]]
    assert raised == [
        ("QueueFull", "NO_MORE_ENTRIES", ""),
        ("InvalidState", "CONNECTION_ACTIVE", "in use, or used before"),
        ("", "", "as `send` otherwise"),
    ]
    assert [item.name for item in parts.lists["Results"]] == ["CANCELLED"]
    assert parts.unchanged == ["Nothing is posted"]


def test_no_page_is_left_over() -> None:
    assert {path.stem for path in Path(PAGES).glob("*.md")} == {item.page for item in OBJECTS} | {"object"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_page_names_a_member_that_does_not_exist(page: Path) -> None:
    names = {cls.__name__: cls for cls in (*CLASSES, softndk.Status, softndk.OpFlag, softndk.MrFlag, softndk.CqNotify)}
    spans = re.findall(r"`(\w+)\.(\w+)", page.read_text(encoding="utf-8"))
    for owner, member in spans:
        if owner in names:
            assert hasattr(names[owner], member), f"{page.name}: {owner}.{member}"


def test_the_page_for_ndkpis_users_has_every_function() -> None:
    text = (ROOT / "docs" / "howto" / "from-ndkpi.md").read_text(encoding="utf-8")
    missing = {name for table in TABLES.values() for name in table.split() if not re.search(rf"\b{name}\b", text)}
    assert not missing
