"""The list of NDKPI's rules: name, topic, what the rule says, and whether a test can prove it.

The texts stand in the TOML files of the folder `rules`. Knows nothing of tests and of providers.
"""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

__all__ = ["Kind", "Rule", "all_rules"]

FILES: Final = ("objects", "connections", "completion", "requests", "memory", "decisions")
_NAME: Final = re.compile(r"(R-(?P<topic>[A-Z]+)|(?P<other>[AE]))-(?P<number>\d+)")


class Kind(Enum):
    """Whether a test can prove a rule; the value is how the tables say it."""

    TESTABLE = "testable"
    KERNEL_ONLY = "kernel-only"
    CONSUMER_DUTY = "consumer-duty"
    NOT_OBSERVABLE = "not-observable"
    NOT_IN_PYTHON = "not-in-python"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `name`: "R-ARM-3"; "A-4" for a decision where the sources leave room, "E-1" for a correction of them.

    `why`: the reason why no test proves it; "" for a testable rule.
    """

    name: str
    topic: str
    says: str
    kind: Kind
    why: str


@functools.cache
def all_rules() -> Mapping[str, Rule]:
    """Every rule by its name, topic after topic. Raises ValueError: the files contradict themselves."""
    found: dict[str, Rule] = {}
    folder = resources.files(__package__) / "rules"
    for name in FILES:
        with (folder / f"{name}.toml").open("rb") as file:
            for rule in _rules_of(tomllib.load(file)):
                if rule.name in found:
                    raise ValueError(f"{name}.toml: {rule.name} is there twice")
                found[rule.name] = rule
    return MappingProxyType(found)


def _rules_of(data: dict[str, Any]) -> list[Rule]:
    """The rules of one file, in the order of its topics."""
    topics: dict[str, list[str]] = data.pop("topics")
    topic_of = {prefix: topic for topic, prefixes in topics.items() for prefix in prefixes}
    order = list(topic_of)

    def place(rule: Rule) -> tuple[int, int]:
        return order.index(_prefix(rule.name)), int(rule.name.rpartition("-")[2])

    return sorted((_rule(name, item, topic_of) for name, item in data.items()), key=place)


def _rule(name: str, item: dict[str, str], topic_of: dict[str, str]) -> Rule:
    kind = Kind(item.get("kind", Kind.TESTABLE.value))
    why = item.get("why", "")
    if (kind is Kind.TESTABLE) == bool(why) or item.keys() - {"says", "kind", "why"}:
        raise ValueError(f"{name}: a rule has `says`, and one without a test `kind` and `why`")
    return Rule(name, topic_of[_prefix(name)], item["says"], kind, why)


def _prefix(name: str) -> str:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no name of a rule")
    return match["topic"] or match["other"]
