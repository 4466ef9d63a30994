"""Makes the tables of docs/reference/supported.md: what of NDKPI is supported, topic by topic and function by function.

Functions come from ndkpi.toml, flags from a queue pair that is asked, rules and decisions from
softndk.conformance.rules, proofs from the tests, deviations and choices from the code's marks.
Run: ``python -m scripts.docs.supported_reference`` from the project's root; ``--check`` only compares.
"""

import sys
from collections import Counter
from collections.abc import Callable
from itertools import groupby

from scripts.docs.generated import Page, table
from scripts.docs.marks import decisions_named, marks
from scripts.docs.ndkpi import Entry, objects, others
from scripts.docs.object_reference import member_link
from scripts.rule_proofs import proofs
from softndk import MrFlag, NdkError, OpFlag, RemoteToken
from softndk.conformance.rules import Kind, Rule, all_rules
from softndk.testing import pair

QUESTIONS = {
    "A-1": "may a close fail?",
    "A-2": "does the peer's graceful disconnect flush?",
    "A-3": "posts after a flush or a failed request?",
    "A-4": "status of a request that the peer refused?",
    "A-5": "receive too small?",
    "A-6": "bind to memory that is not there?",
    "A-7": "does a fast register or bind make a new token?",
    "A-8": "connection data after accept, complete or a refusal?",
    "A-9": "invalidating what is invalid?",
    "A-10": "message without a receive?",
    "A-11": "which arms does a failed request fire?",
    "A-12": "is a new SRQ's notification armed?",
    "A-13": "who may use a token?",
    "A-14": "status of a disconnect that cannot be graceful?",
    "A-15": "INLINE for writes?",
    "A-16": "base address 0 of a fast register?",
    "A-17": "initialising a fast-register region twice?",
    "A-18": "using a connector or queue pair again?",
    "A-19": "disconnect event after the local disconnect or close?",
    "A-20": "majors 1 and 2 in one provider?",
    "A-21": "accepting after the listener's close?",
    "A-22": "wildcard address?",
    "A-23": "CQ without a callback?",
    "A-24": "lengths of 0 in registration, bind, fast register?",
    "A-25": "completion callback inside the call?",
    "A-26": "accept when the peer has gone?",
    "A-27": "receives of a refused connect?",
}


def parts() -> dict[str, str]:
    """The tables."""
    return {
        "summary": _summary(),
        "functions": _functions(),
        "flags": _flags(),
        "topics": _topics(),
        "reasons": _reasons(),
        "deviations": _marked("Deviation"),
        "decisions": _decisions(),
        "choices": _marked("Choice"),
    }


def _summary() -> str:
    entries = [entry for item in objects().values() for entry in item.entries]
    states = Counter(entry.state for entry in entries)
    rules = list(all_rules().values())
    reasons = sum(rule.kind is not Kind.TESTABLE and not _proved([rule]) for rule in rules)
    rows = [
        (
            "entries of the dispatch tables",
            len(entries),
            f"{states['yes']} as NDKPI describes them, {states['partly']} partly, {states['no']} not",
        ),
        (
            "rules",
            len(rules),
            f"{_proved(rules)} proved by tests, {reasons} with a reason why no test can",
        ),
        ("decisions where NDKPI is open", sum(name in QUESTIONS for name in all_rules()), "[listed below](#choices)"),
        ("deviations", sum(mark.kind == "Deviation" for mark in marks()), "[listed below](#deviations)"),
    ]
    return table(("What", "Number", ""), rows)


def _functions() -> str:
    sections = []
    for item in objects().values():
        if item.entries:
            title = f"### {item.dispatch}"
            link = f"[{item.cls.__name__}](objects/{item.page}.md)"
            sections.append(f"{title}\n\n{link}\n\n{_entries(item.entries)}")
    sections += [f"### {group.title}\n\n{_entries(group.entries)}" for group in others().values()]
    return "\n\n".join(sections)


def _entries(entries: tuple[Entry, ...]) -> str:
    rows = [
        (entry.name, member_link(entry.python, folder="objects/") if entry.python else "", entry.state, entry.remark)
        for entry in entries
    ]
    return table(("Function", "In Python", "State", "Remark"), rows)


def _flags() -> str:
    """Which request takes which flag: tried with each, on a queue pair that only cancels what it takes."""
    flags = [flag for flag in OpFlag.__members__.values() if flag]
    with pair() as (a, _), a.adapter.build_lam(bytearray(64)).result(1) as mapping:
        fast, window = a.pd.create_mr(fast_register=True), a.pd.create_mw()
        fast.initialize_fast_register(1, True).result(1)
        a.qp.flush()
        token = RemoteToken(1)
        posts: dict[str, Callable[[int], None]] = {
            "send": lambda flags: a.qp.send(b"", flags=flags),
            "send_and_invalidate": lambda flags: a.qp.send_and_invalidate(b"", token, flags=flags),
            "write": lambda flags: a.qp.write(b"", 0, token, flags=flags),
            "read": lambda flags: a.qp.read(a.mr[0:1], 0, token, flags=flags),
            "bind": lambda flags: a.qp.bind(a.mr, window, flags=flags),
            "fast_register": lambda flags: a.qp.fast_register(fast, mapping, flags=flags),
            "invalidate": lambda flags: a.qp.invalidate(window, flags=flags),
            "send_immediate": lambda flags: a.qp.send_immediate(0, flags=flags),
            "fetch_add": lambda flags: a.qp.fetch_add(a.mr[0:8], 0, token, 1, flags=flags),
            "compare_swap": lambda flags: a.qp.compare_swap(a.mr[0:8], 0, token, 0, 1, flags=flags),
        }
        rows = [
            (f"`{flag.name}`", f"{flag.value:#05x}", *("yes" if _takes(post, flag) else "" for post in posts.values()))
            for flag in flags
        ]
    regions = [(f"`{flag.name}`", f"{flag.value:#x}") for flag in MrFlag.__members__.values()]
    head = ("`OpFlag`", "Value", *(f"`{name}`" for name in posts))
    return f"{table(head, rows)}\n\n{table(('`MrFlag`, of `Mr.register`', 'Value'), regions)}"


def _takes(post: Callable[[int], None], flag: OpFlag) -> bool:
    try:
        post(flag.value)
    except NdkError as error:
        return "R-FLAG-" not in str(error)  # another refusal has nothing to do with the flag
    return True


def _topics() -> str:
    rows = []
    for topic, rules in groupby(all_rules().values(), key=lambda rule: rule.topic):
        held = list(rules)
        rows.append((f"[{topic}](rules.md#{_anchor(topic)})", len(held), _proved(held), _why_not(held)))
    total = list(all_rules().values())
    rows.append(("all", len(total), _proved(total), _why_not(total)))
    return table(("Topic", "Rules", "Proved by tests", "No test can, because"), rows)


def _proved(rules: list[Rule]) -> int:
    return sum(bool(proofs().tests.get(rule.name)) for rule in rules)


def _why_not(rules: list[Rule]) -> str:
    kinds = Counter(rule.kind.value for rule in rules if rule.kind is not Kind.TESTABLE and not _proved([rule]))
    unproved = [rule.name for rule in rules if rule.kind is Kind.TESTABLE and not proofs().tests.get(rule.name)]
    told = [f"{kind}: {count}" for kind, count in sorted(kinds.items())]
    return ", ".join([*told, *([f"**not proved: {', '.join(unproved)}**"] if unproved else [])])


def _anchor(topic: str) -> str:
    return topic.lower().replace(" ", "-")


def _reasons() -> str:
    rows = [
        (rule.name, rule.says, f"*{rule.kind.value}*: {rule.why}")
        for rule in all_rules().values()
        if rule.kind in (Kind.NOT_IN_PYTHON, Kind.KERNEL_ONLY)
    ]
    return table(("Rule", "What it says", "Why it has no form here"), rows)


def _marked(kind: str) -> str:
    rows = [(_capital(mark.text), ", ".join(mark.rules), f"`{mark.module}`") for mark in marks() if mark.kind == kind]
    return table(("Here", "Rules", "Marked in"), rows)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _decisions() -> str:
    """Raises KeyError: a decision without its question."""
    named = decisions_named()
    rows = [
        (rule.name, QUESTIONS[rule.name], rule.says, "<br>".join(f"`{module}`" for module in named.get(rule.name, ())))
        for rule in all_rules().values()
        if rule.name.startswith("A-")
    ]
    return table(("Point", "Question", "Here", "Named in"), rows)


PAGE = Page("docs/reference/supported.md", "supported_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
