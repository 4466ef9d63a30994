"""Makes the generated parts of docs/reference/objects/*.md: what each object is, its dispatch table, members, rules.

Members, signatures and what they do come from the source and its docstrings, the dispatch tables from ndkpi.toml, the
rules from softndk.conformance.rules. Run: ``python -m scripts.docs.object_reference``; ``--check`` only compares.
"""

import ast
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import softndk
from scripts.docs.docstrings import Item, Parts, parse
from scripts.docs.generated import Page, table
from scripts.docs.ndkpi import NdkpiObject, objects, public_members
from softndk.conformance.rules import Kind, all_rules

FOLDER = "docs/reference/objects"
SCRIPT = "object_reference"
EVERY_OBJECT_TOPICS = ("Closing", "Asynchronous requests", "Concurrency")
HEADINGS = {"Raises": "Raises", "The Pending fails with": "The Pending fails with", "Results": "The result's status"}


def parts_of(item: NdkpiObject) -> dict[str, str]:
    """The parts of one object's page."""
    return {
        "facts": _facts(item),
        "dispatch": _dispatch(item),
        "members": members_of(item.cls, item),
        "rules": rules_of(item.topics),
    }


def every_object_parts() -> dict[str, str]:
    """The parts of the page on what all objects have, and on Pending."""
    return {
        "members": members_of(softndk.NdkObject),
        "pending": members_of(softndk.Pending),
        "rules": rules_of(EVERY_OBJECT_TOPICS),
    }


def _facts(item: NdkpiObject) -> str:
    rows = [
        ("In NDKPI", f"{item.ndkpi}; dispatch table: {item.dispatch}"),
        ("In Python", f"`softndk.{item.cls.__name__}`"),
        ("Made by", item.made_by),
        ("Parent", item.parent),
        ("Also depends on", item.antecedents),
        ("Its close is done", item.freed),
    ]
    return table(("", ""), rows)


def _dispatch(item: NdkpiObject) -> str:
    if not item.entries:
        return "It has no dispatch table."
    rows = [
        (entry.name, member_link(entry.python, item) if entry.python else "", entry.state, entry.remark)
        for entry in item.entries
    ]
    return table(("Entry", "In Python", "State", "Remark"), rows)


def member_link(python: str, here: NdkpiObject | None = None, folder: str = "") -> str:
    """A link to a member's section. `here`: the page that the link stands on; `folder`: from there to the pages."""
    owner, _, member = python.partition(".")
    if not member:
        return f"`{python}`"
    page = next((item.page for item in objects().values() if item.cls.__name__ == owner), "object")
    cls = softndk.Pending if owner == "Pending" else getattr(softndk, owner)
    if member not in public_members(cls):  # inherited
        page = "object"
    place = "" if here is not None and page == here.page else f"{folder}{page}.md"
    return f"[`{python}`]({place}#{anchor(member)})"


def anchor(member: str) -> str:
    """The anchor of a member's heading."""
    return re.sub(r"[^\w\- ]", "", _title(member)).lower().replace(" ", "-")


def _title(name: str) -> str:
    special = {
        "__getitem__": "`[a:b]`",
        "__iter__": "`for`",
        "__aiter__": "`async for`",
        "__await__": "`await`",
    }
    return special.get(name, f"`{name}`")


def members_of(cls: type, item: NdkpiObject | None = None) -> str:
    """A section for each public member that the class defines itself."""
    sections = []
    for name, member in public_members(cls).items():
        function: Any = member.fget if isinstance(member, property) else member
        entries = [] if item is None else item.entries_of(name)
        text = [f"### {_title(name)}", _signature(function, isinstance(member, property))]
        if entries:
            text.append(f"NDKPI: {', '.join(entry.name for entry in entries)}.")
        elif item is not None and name in item.added:
            text.append(f"Not in the dispatch table: {item.added[name]}.")
        text += _description(parse(function), tuple(inspect.signature(function).parameters))
        sections.append("\n\n".join(text))
    return "\n\n".join(sections) or "It has none of its own."


def _signature(function: Any, is_property: bool) -> str:
    """The lines of the definition as they stand in the source."""
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    decorator = ["@property"] if is_property else []
    return "\n".join(["```python signature", *decorator, *lines[:-1], f"{lines[-1].rstrip()} ...", "```"])


def _description(parts: Parts, parameters: tuple[str, ...]) -> list[str]:
    text = [_prose(paragraph, parameters) for paragraph in parts.prose]
    for label, items in parts.lists.items():
        text += _items(HEADINGS[label], items)
    text += [f"{_AFTER} {_markdown(words[0].lower() + words[1:])}." for words in parts.unchanged]
    return text


_AFTER = "When a call raises,"


def _prose(paragraph: str, parameters: tuple[str, ...]) -> str:
    """A paragraph; sentences of the form "name: meaning" on parameters become a list."""
    if not parameters:
        return _markdown(paragraph)
    name = "|".join(map(re.escape, parameters))
    pieces = re.split(rf"(?:^|(?<=[.;)] ))((?:{name})(?:, (?:{name}))*)(?:\([^)]*\))?: ", paragraph)
    lead, rest = pieces[0].strip(), pieces[1:]
    lines = [_markdown(lead)] if lead else []
    bullets = [
        f"* {', '.join(f'`{item}`' for item in names.split(', '))}: {_markdown(meaning.strip())}"
        for names, meaning in zip(rest[::2], rest[1::2], strict=True)
    ]
    return "\n\n".join([*lines, "\n".join(bullets)] if bullets else lines)


def _items(heading: str, items: Iterable[Item]) -> list[str]:
    """A table, and a sentence for what refers to another member."""
    rows, references = [], []
    for item in items:
        if item.name:
            rows.append((f"`{item.name}`", item.status, _markdown(item.when)))
        else:
            references.append(f"{heading}: {_markdown(item.when)}.")
    if rows and not any(row[1] for row in rows):
        return [table((heading, "When"), [(row[0], row[2]) for row in rows]), *references]
    return [table((heading, "Status", "When"), rows), *references] if rows else references


def _markdown(text: str) -> str:
    """Docstring prose as Markdown: double backticks become single ones, stars are escaped."""
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("*", "\\*")


def rules_of(topics: Iterable[str]) -> str:
    """The rules of some topics, as the rule list has them."""
    rows = []
    for topic in topics:
        for rule in all_rules().values():
            if rule.topic == topic:
                reason = "" if rule.kind is Kind.TESTABLE else f" *{rule.kind.value}*"
                place = topic.lower().replace(" ", "-")
                rows.append((f"[{rule.name}](../rules.md#{place})", f"{rule.says}{reason}"))
    if not rows:
        raise ValueError(f"no rule has one of the topics {topics}")
    return table(("Rule", "What it says"), rows)


def _page(name: str, make: Callable[[], dict[str, str]]) -> Page:
    return Page(f"{FOLDER}/{name}.md", SCRIPT, make)


PAGES = (
    *(_page(item.page, functools.partial(parts_of, item)) for item in objects().values()),
    _page("object", every_object_parts),
)

if __name__ == "__main__":
    sys.exit(max(page.main() for page in PAGES))
