"""The steps of scenario files and their fields, taken from the methods of `Peer` and their annotations."""

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Protocol, get_args, get_origin

from softndk.peer.fields import Count, Pieces
from softndk.peer.peer import Peer

__all__ = ["BLOCKS", "STEPS_FIELD", "Field", "StepKind", "step_kinds"]


class Converter(Protocol):
    """A kind of value. text: what can be written."""

    @property
    def text(self) -> str: ...

    def convert(self, value: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a step. needed: it has no default."""

    name: str
    kind: Converter
    needed: bool


@dataclass(frozen=True, slots=True)
class StepKind:
    """One step. summary: of its docstring. first: the field that `- step: value` sets, if there is one."""

    name: str
    summary: str
    fields: Mapping[str, Field]
    first: str | None


STEPS_FIELD: Final = "steps"
"""The field of a block that holds the steps inside it."""


@cache
def step_kinds() -> Mapping[str, StepKind]:
    """Every step that is a method, by name, in the order of the class."""
    return {
        name: _kind_of(name, method)
        for name, method in vars(Peer).items()
        if getattr(method, "is_step", False)
    }  # fmt: skip


def _kind_of(name: str, method: Any) -> StepKind:
    hints = typing.get_type_hints(method, include_extras=True)
    fields: dict[str, Field] = {}
    first: str | None = None
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            [group] = get_args(hints[parameter.name])
            for inner, hint in typing.get_type_hints(group, include_extras=True).items():
                fields[inner] = Field(inner, _converter(hint), False)
            continue
        if first is None:
            first = parameter.name
        needed = parameter.default is parameter.empty
        fields[parameter.name] = Field(parameter.name, _converter(hints[parameter.name]), needed)
    return StepKind(name, _first_paragraph(method), fields, first)


def _converter(hint: Any) -> Converter:
    if get_origin(hint) in (typing.Union, types.UnionType):
        [hint] = [part for part in get_args(hint) if get_origin(part) is Annotated]
    assert get_origin(hint) is Annotated, hint
    converter: Converter = get_args(hint)[1]
    return converter


def _first_paragraph(method: Any) -> str:
    return " ".join((inspect.getdoc(method) or "").split("\n\n")[0].split())


BLOCKS: Final[Mapping[str, StepKind]] = {
    "repeat": StepKind(
        "repeat",
        "Do the steps inside so many times.",
        {"times": Field("times", _converter(Count), True)},
        None,
    ),
    "together": StepKind(
        "together",
        "Send what the steps inside send in one piece, or in the pieces that `split` says.",
        {"split": Field("split", _converter(Pieces), False)},
        None,
    ),
}
"""Steps that hold other steps, in the field `steps`."""
