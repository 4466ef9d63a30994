"""Scenarios: what they are, and how they are read from YAML and Python files.

Every mistake in a file is told with file, line, step and field, and with what could stand there. Files are data: a YAML
file can name steps and values only. A Python file is a program, and is run.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import yaml

from softndk.peer.fields import BadValue, Later, resolved
from softndk.peer.frames import can_have
from softndk.peer.peer import Peer, Role
from softndk.peer.reactions import ACCEPTS, Reaction
from softndk.peer.vocabulary import BLOCKS, STEPS_FIELD, Field, StepKind, step_kinds

__all__ = ["Scenario", "ScenarioError", "load", "scenario", "shipped"]

MOST_FILE_OCTETS: Final = 1 << 20
MOST_NODES: Final = 100_000
"""Values in one file, each alias counted as often as it is used."""
MOST_STEPS: Final = 1_000_000
"""Steps that a scenario of a file does, those in `repeat` counted as often as they are done. More than ten for each turn
of the longest `repeat`, and more than a connection under test needs; without it, a few lines could keep a player busy for
years."""
_COUNTED_STEPS: Final = 10**18
"""Beyond it nobody counts on: the number is for a message only."""
_KEYS: Final = ("name", "title", "rule", "why", "roles", "ulp", "required", "allowed", "steps")
_ROLES: Final = {role.value: role for role in Role}


class ScenarioError(Exception):
    """A scenario that cannot be read or played; the text begins with file and line."""


@dataclass(frozen=True)
class Scenario:
    """One thing to try. rule: what the standards say, for a person, and where. why: what may go wrong without.

    required: reactions that the standards ask for, any of them. allowed: further ones that they leave room for, with the
    reason or "". rping: the other side must speak rping's protocol. play: carries the steps out.
    """

    name: str
    title: str
    rule: str
    roles: tuple[Role, ...]
    required: tuple[Reaction, ...]
    play: Callable[[Peer], None] = field(compare=False, repr=False)
    allowed: Mapping[Reaction, str] = field(default_factory=dict)
    rping: bool = False
    why: str = ""
    source: str = ""
    text: str = field(default="", compare=False, repr=False)
    """As it stands in its file; empty for a function."""

    @property
    def accepts(self) -> bool:
        """Whether carrying on is one of the right reactions."""
        return ACCEPTS in self.required or ACCEPTS in self.allowed


def shipped() -> dict[str, Scenario]:
    """The scenarios that come with the package, by name, in the order of the error table."""
    folder = resources.files("softndk.peer") / "scenarios"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    found: dict[str, Scenario] = {}
    for entry in files:
        for one in _from_yaml(entry.read_text(encoding="utf-8"), entry.name):
            found[one.name] = one
    return found


def load(path: Path) -> list[Scenario]:
    """The scenarios in a .yaml, .yml or .py file. Raises: ScenarioError."""
    if path.suffix == ".py":
        return _from_python(path)
    if path.suffix not in (".yaml", ".yml"):
        raise ScenarioError(f"{path}: a scenario's file ends in .yaml, .yml or .py")
    try:
        with open(path, "rb") as file:
            octets = file.read(MOST_FILE_OCTETS + 1)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from None
    if len(octets) > MOST_FILE_OCTETS:
        raise ScenarioError(f"{path}: longer than {MOST_FILE_OCTETS} octets")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: octet {error.start} is not UTF-8") from None
    return list(_from_yaml(text, str(path)))


# ---- Python

_Play = TypeVar("_Play", bound=Callable[[Peer], None])
Roles = Literal["initiator", "responder"]


def scenario(
    *,
    title: str,
    rule: str,
    required: str | Sequence[str],
    allowed: Sequence[str] | Mapping[str, str] = (),
    roles: Roles | Sequence[Roles] = ("initiator", "responder"),
    name: str | None = None,
    ulp: Literal["rping"] | None = None,
    why: str = "",
) -> Callable[[Callable[[Peer], None]], Scenario]:
    """Make a scenario of a function that takes a `Peer`; the arguments are those of a scenario file.

    Raises: ValueError: a reaction or a role that does not exist.
    """
    wanted = (required,) if isinstance(required, str) else tuple(required)
    reasons = allowed if isinstance(allowed, Mapping) else dict.fromkeys(allowed, "")
    names = (roles,) if isinstance(roles, str) else tuple(roles)

    def make(play: Callable[[Peer], None]) -> Scenario:
        return Scenario(
            name=name or str(getattr(play, "__name__", "scenario")).replace("_", "-"),
            title=title,
            rule=rule,
            roles=tuple(Role(role) for role in names),
            required=tuple(map(Reaction.parse, wanted)),
            allowed={Reaction.parse(text): reason for text, reason in reasons.items()},
            rping=ulp == "rping",
            why=why,
            source=inspect.getsourcefile(play) or "",
            play=play,
        )

    return make


def _from_python(path: Path) -> list[Scenario]:
    if not path.is_file():
        raise ScenarioError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"softndk_scenarios_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ScenarioError(_where(path, error)) from error
    found = [value for value in vars(module).values() if isinstance(value, Scenario)]
    if not found:
        raise ScenarioError(f"{path}: no scenario in it; put @scenario(...) before a function that takes a Peer")
    return found


def _where(path: Path, error: BaseException) -> str:
    """The line of that file in which something of it went wrong."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{path}:{error.lineno}: {error.msg}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.absolute()
        or Path(frame.filename) == path
    ]  # fmt: skip
    place = f"{path}:{lines[-1]}" if lines else str(path)
    return f"{place}: {type(error).__name__}: {error}"


def python_problem(source: str, error: BaseException) -> str:
    """What went wrong in a scenario that is a function."""
    return _where(Path(source), error) if source else f"{type(error).__name__}: {error}"


# ---- YAML


def _too_many(steps: str) -> str:
    return f"{steps} steps, limit {MOST_STEPS} for a scenario; repeat fewer times, or make several scenarios of it"


@dataclass(frozen=True)
class _Steps:
    """Steps that are done one after the other. count: how many they are, as far as that is known before."""

    actions: Sequence[Callable[[Peer], None]]
    count: int

    def __call__(self, peer: Peer) -> None:
        for action in self.actions:
            action(peer)


class _Reader:
    """One file. Goes through its nodes, so that each value keeps its line."""

    def __init__(self, name: str, text: str, loader: yaml.SafeLoader) -> None:
        self._name = name
        self._text = text
        self._loader = loader
        self._nodes = 0

    def error(self, node: yaml.Node, text: str) -> ScenarioError:
        return ScenarioError(f"{self._name}:{node.start_mark.line + 1}: {text}")

    def value(self, node: yaml.Node) -> Any:
        """Numbers, texts, lists and maps."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise self.error(node, f"more than {MOST_NODES} values (aliases count each time)")
        if isinstance(node, yaml.ScalarNode):
            try:
                return self._loader.construct_object(node)
            except (ValueError, yaml.YAMLError):
                raise self.error(node, f"{node.value!r} cannot be read as {node.tag.rpartition(':')[2]}") from None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        return {name: self.value(inner) for name, (_, inner) in self.entries(node, "a map").items()}

    def entries(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The keys of a map, each once, with the nodes of key and value."""
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} must be a map (name: value)")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, inner in node.value:
            name = self.value(key)
            if not isinstance(name, str):
                raise self.error(key, f"{name!r} is not a name")
            if name in found:
                raise self.error(key, f"{name!r} stands here twice")
            found[name] = (key, inner)
        return found

    def text(self, node: yaml.Node, key: str) -> str:
        value = self.value(node)
        if not isinstance(value, str) or not value.strip():
            raise self.error(node, f"{key}: {value!r} is not a text")
        return " ".join(value.split())

    def reactions(self, node: yaml.Node, key: str) -> dict[Reaction, str]:
        """One reaction, a list of them, or a map from reactions to reasons."""
        if isinstance(node, yaml.MappingNode):
            pairs = [(key_node, self.value(key_node), self.value(inner) or "") for key_node, inner in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pairs = [(item, self.value(item), "") for item in node.value]
        else:
            pairs = [(node, self.value(node), "")]
        found: dict[Reaction, str] = {}
        for place, words, reason in pairs:
            if not isinstance(reason, str):
                raise self.error(place, f"{key}: {reason!r} is not a reason (a text)")
            try:
                found[Reaction.parse(str(words))] = reason
            except ValueError as error:
                raise self.error(place, f"{key}: {error}") from None
        return found

    def scenario(self, node: yaml.Node, stem: str) -> Scenario:
        entries = self.entries(node, "a scenario")
        for name, (key, _) in entries.items():
            if name not in _KEYS:
                raise self.error(key, f"{name!r} is not a key of a scenario; there are: {', '.join(_KEYS)}")
        for name in ("title", "rule", "required", "steps"):
            if name not in entries:
                raise self.error(node, f"the scenario has no {name!r}")
        texts = {
            name: self.text(entries[name][1], name) for name in ("name", "title", "rule", "why") if name in entries
        }
        if " " in texts.get("name", ""):
            raise self.error(entries["name"][1], f"name: {texts['name']!r} is more than one word")
        roles = self._roles(entries["roles"][1]) if "roles" in entries else tuple(Role)
        rping = False
        if "ulp" in entries:
            if self.value(entries["ulp"][1]) != "rping":
                raise self.error(entries["ulp"][1], "ulp: the one that is known here is 'rping'")
            rping = True
        required = tuple(self.reactions(entries["required"][1], "required"))
        allowed = self.reactions(entries["allowed"][1], "allowed") if "allowed" in entries else {}
        name = texts.get("name", stem)
        steps = self.steps(entries["steps"][1], {"ird", "ord"})
        if steps.count > MOST_STEPS:
            raise self.error(entries["steps"][0], f"scenario {name!r}: {_too_many(f'at least {steps.count}')}")

        return Scenario(
            name=name,
            title=texts["title"],
            rule=texts["rule"],
            roles=roles,
            required=required,
            allowed=allowed,
            rping=rping,
            why=texts.get("why", ""),
            source=self._name,
            text=self._text[node.start_mark.index : node.end_mark.index].rstrip() + "\n",
            play=steps,
        )

    def _roles(self, node: yaml.Node) -> tuple[Role, ...]:
        value = self.value(node)
        names = value if isinstance(value, list) else [value]
        for name in names:
            if name not in _ROLES:
                raise self.error(node, f"roles: {name!r} is not one of {', '.join(_ROLES)}")
        return tuple(_ROLES[name] for name in names)

    # steps

    def steps(self, node: yaml.Node, known: set[str], *, inside_together: bool = False) -> "_Steps":
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self.error(node, "steps must be a list (- step: fields)")
        made = [
            self._step(item, number, known, inside_together=inside_together)
            for number, item in enumerate(node.value, 1)
        ]
        return _Steps([action for action, _ in made], sum(count for _, count in made))

    def _step(
        self, node: yaml.Node, number: int, known: set[str], *, inside_together: bool
    ) -> tuple[Callable[[Peer], None], int]:
        """What the step does, and how many steps that is."""
        if isinstance(node, yaml.ScalarNode):
            if self.value(node) is None:
                raise self.error(node, f"step {number} is empty")
            name, key, body = str(self.value(node)), cast("yaml.Node", node), None
        else:
            entries = self.entries(node, f"step {number}")
            if len(entries) != 1:
                raise self.error(
                    node, f"step {number} has {len(entries)} names ({', '.join(entries)}); fields stand further in"
                )
            [(name, (key, body))] = entries.items()
        if name == "sync" and inside_together:
            raise self.error(
                key, f"step {number}: 'sync' waits for an answer, but nothing goes out before 'together' ends"
            )
        kinds = {**step_kinds(), **BLOCKS}
        kind = kinds.get(name)
        if kind is None:
            raise self.error(key, f"step {number}: {name!r} is not a step; there are: {', '.join(sorted(kinds))}")
        where = f"step {number} ({name})"
        if name in BLOCKS:
            return self._block(kind, key, body, where, known, inside_together=inside_together)
        return self._action(kind, key, self._fields(kind, key, body, where, known), where), 1

    def _fields(
        self, kind: StepKind, key: yaml.Node, body: yaml.Node | None, where: str, known: set[str]
    ) -> dict[str, Any]:
        """The values of a step's fields, checked; variables must have been captured by an earlier step."""
        given: dict[str, yaml.Node] = {}
        if isinstance(body, yaml.MappingNode):
            given = {name: inner for name, (_, inner) in self.entries(body, where).items()}
        elif body is not None and self.value(body) is not None:
            if kind.first is None:
                raise self.error(body, f"{where}: takes named fields or nothing, not {self.value(body)!r}")
            given = {kind.first: body}
        values: dict[str, Any] = {}
        for name, inner in given.items():
            if name == STEPS_FIELD and kind.name in BLOCKS:
                continue
            spec = kind.fields.get(name)
            if spec is None:
                there = ", ".join(kind.fields) or "none"
                raise self.error(inner, f"{where}: {name!r} is not a field of it; there are: {there}")
            values[name] = self._field(spec, inner, where, known)
        for spec in kind.fields.values():
            if spec.needed and spec.name not in given:
                raise self.error(key, f"{where}: {spec.name!r} is missing; it is {spec.kind.text}")
        if "frame" in values:
            self._check_frame_fields(values, given, where)
        capture = values.get("capture")
        if isinstance(capture, dict):
            known.update(capture)
        return values

    def _check_frame_fields(self, values: Mapping[str, Any], given: Mapping[str, yaml.Node], where: str) -> None:
        """What a step waits for or captures must be a field that such a frame can have."""
        frame = values["frame"]
        there = can_have(frame)
        named = [("where", name) for name in self.entries(given["where"], where)] if "where" in given else []
        named += [("capture", source) for source in values.get("capture", {}).values() if isinstance(source, str)]
        for key, name in named:
            if name not in there:
                has = ", ".join(sorted(there))
                raise self.error(given[key], f"{where}: {key}: {name!r} is not a field of {frame}; there are: {has}")

    def _field(self, spec: Field, node: yaml.Node, where: str, known: set[str]) -> Any:
        try:
            value = spec.kind.convert(self.value(node))
        except BadValue as error:
            raise self.error(node, f"{where}: {spec.name}: {error}") from None
        if isinstance(value, Later):
            for name in sorted(value.names - known):
                has = ", ".join(f"${known_name}" for known_name in sorted(known))
                raise self.error(node, f"{where}: {spec.name}: no step before captures ${name}; there are: {has}")
        return value

    def _block(
        self,
        kind: StepKind,
        key: yaml.Node,
        body: yaml.Node | None,
        where: str,
        known: set[str],
        *,
        inside_together: bool,
    ) -> tuple[Callable[[Peer], None], int]:
        if not isinstance(body, yaml.MappingNode):
            raise self.error(key, f"{where}: needs the field 'steps'")
        values = self._fields(kind, key, body, where, known)
        inner = [node for name, (_, node) in self.entries(body, where).items() if name == STEPS_FIELD]
        if not inner:
            raise self.error(key, f"{where}: needs the field 'steps'")
        steps = self.steps(inner[0], known, inside_together=inside_together or kind.name == "together")

        def repeat(peer: Peer) -> None:
            for _ in range(resolved(values["times"], peer.variables)):
                steps(peer)

        def together(peer: Peer) -> None:
            with peer.together(values.get("split")):
                steps(peer)

        if kind.name == "together":
            return together, steps.count
        times = values["times"]
        turns = 1 if isinstance(times, Later) else times  # a variable has its value at run time only; it is 1 at least
        return repeat, min(turns * steps.count, _COUNTED_STEPS)

    def _action(self, kind: StepKind, key: yaml.Node, values: Mapping[str, Any], where: str) -> Callable[[Peer], None]:
        def action(peer: Peer) -> None:
            peer.steps_done += 1
            if peer.steps_done > MOST_STEPS:
                raise self.error(key, f"{where}: {_too_many(str(peer.steps_done))}")
            try:
                fields = {name: resolved(value, peer.variables) for name, value in values.items()}
                getattr(peer, kind.name)(**fields)
            except BadValue as error:
                raise self.error(key, f"{where}: {error}") from None
            except KeyError as error:
                raise self.error(key, f"{where}: ${error.args[0]} has no value yet") from None
            except LookupError as error:
                raise self.error(key, f"{where}: {error}") from None

        return action


def _from_yaml(text: str, name: str) -> Iterator[Scenario]:
    """The scenarios of a file: each document is one, or a list of them. Raises: ScenarioError."""
    loader = yaml.SafeLoader(text)
    stem = Path(name).stem
    try:
        reader = _Reader(name, text, loader)
        empty = True
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            for item in items:
                empty = False
                yield reader.scenario(item, stem)
        if empty:
            raise ScenarioError(f"{name}:1: there is no scenario in it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ScenarioError(f"{name}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ScenarioError(f"{name}: not YAML: {error}") from None
    except RecursionError:
        raise ScenarioError(f"{name}: values lie too deep inside each other") from None
    finally:
        loader.dispose()
