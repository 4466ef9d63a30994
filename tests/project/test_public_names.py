"""The public face is what public_contract.py says, and `__all__` tells the truth about it."""

import dataclasses
import enum
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import softndk
import softndk.ndk
import softndk.testing
from tests.project.public_contract import (
    ATTRIBUTE,
    CLASSES,
    CONTRACT,
    DUNDER,
    ENUMS,
    ERRORS,
    FUNCTIONS,
    INTERNAL,
    LATER,
    NDK_OBJECTS,
    PROPERTY,
    RECORDS,
    TESTING_NAMES,
)


def public_class(name: str) -> type:
    """The class of that name; its absence is a failure."""
    found = getattr(softndk, name, None)
    assert isinstance(found, type), f"softndk.{name} is missing or no class"
    return found


# ---- __all__ ----------------------------------------------------------------------------------------------


def test_all_lists_each_name_once() -> None:
    assert len(softndk.__all__) == len(set(softndk.__all__))


def test_all_is_what_the_package_binds() -> None:
    """Every public name that `import softndk` gives stands in `__all__`, and the other way round."""
    bound = {
        name for name, value in vars(softndk).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(softndk.__all__) == bound


def declaring_modules() -> Iterator[ModuleType]:
    """The modules that users get their names from: the values beside the packages, and ndk/."""
    for package in (softndk, softndk.ndk):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
                yield importlib.import_module(info.name)


def test_all_holds_what_the_modules_declare() -> None:
    declared = {name for module in declaring_modules() for name in getattr(module, "__all__", ())}
    assert declared - INTERNAL - set(softndk.__all__) == set()


def test_all_holds_nothing_that_a_module_keeps_to_itself() -> None:
    """The module that defines an exported class or function lists it in its own `__all__`."""
    hidden = []
    for name in softndk.__all__:
        home = getattr(getattr(softndk, name), "__module__", None)
        if isinstance(home, str) and home.startswith("softndk.") and not home.startswith("softndk.ndk._"):
            module = importlib.import_module(home)
            if name not in getattr(module, "__all__", ()):
                hidden.append(f"{home}.{name}")
    assert hidden == []


def test_the_contract_is_exported() -> None:
    assert CONTRACT - set(softndk.__all__) == set()


def test_the_testing_package_has_its_names() -> None:
    assert TESTING_NAMES - set(softndk.testing.__all__) == set()


# ---- shapes -----------------------------------------------------------------------------------------------


def shape(parameters: str) -> list[inspect.Parameter]:
    """'a, b=..., *, c' as parameters; `...` stands for any default."""
    function = eval(f"lambda {parameters}: None")
    return list(inspect.signature(function).parameters.values())


def differences(expected: list[inspect.Parameter], actual: list[inspect.Parameter]) -> list[str]:
    """Say how `actual` cannot be called like `expected`; further parameters must have defaults."""
    found = []
    empty = inspect.Parameter.empty
    names = {parameter.name: parameter for parameter in actual}
    for index, wanted in enumerate(expected):
        given = names.pop(wanted.name, None)
        if given is None:
            found.append(f"no parameter {wanted.name}")
        elif given.kind is not wanted.kind:
            found.append(f"{wanted.name} is {given.kind.description}, not {wanted.kind.description}")
        elif (given.default is empty) is not (wanted.default is empty):
            found.append(f"{wanted.name} has {'no' if given.default is empty else 'a'} default")
        elif wanted.kind is wanted.POSITIONAL_OR_KEYWORD and actual[index].name != wanted.name:
            found.append(f"{wanted.name} is not number {index + 1}")
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for further in names.values():
        if further.default is empty and further.kind not in variable:
            found.append(f"{further.name} is new and has no default")
    return found


def parameters_of(owner: type, member: str) -> list[inspect.Parameter]:
    """The parameters of a method as its callers see them: without self."""
    static = inspect.getattr_static(owner, member)
    parameters = list(inspect.signature(getattr(owner, member)).parameters.values())
    return parameters if isinstance(static, (staticmethod, classmethod)) else parameters[1:]


def is_declared(owner: type, member: str) -> bool:
    """Whether instances have that attribute: a property, a slot, a class attribute or an annotation."""
    return any(member in vars(base) or member in inspect.get_annotations(base) for base in owner.__mro__)


def is_forgiven(owner: str, member: str) -> bool:
    """Not there, and not due yet."""
    later = owner in LATER or f"{owner}.{member}" in LATER
    return later and member not in dir(getattr(softndk, owner, None))


MEMBERS = [(owner, member) for owner in CLASSES for member in CLASSES[owner] if not is_forgiven(owner, member)]


@pytest.mark.parametrize(("owner", "member"), MEMBERS, ids=[".".join(pair) for pair in MEMBERS])
def test_a_member_is_there_and_takes_what_it_should(owner: str, member: str) -> None:
    holder = public_class(owner)
    expected = CLASSES[owner][member]
    assert is_declared(holder, member), f"{owner}.{member} is missing"
    if expected == PROPERTY:
        assert isinstance(inspect.getattr_static(holder, member), property)
    elif expected == DUNDER:
        assert callable(getattr(holder, member))
    elif expected != ATTRIBUTE:
        assert differences(shape(expected), parameters_of(holder, member)) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_what_it_should(name: str) -> None:
    actual = list(inspect.signature(getattr(softndk, name)).parameters.values())
    assert differences(shape(FUNCTIONS[name]), actual) == []


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_frozen_and_has_its_fields(name: str) -> None:
    record = public_class(name)
    expected = shape(RECORDS[name])
    actual = list(inspect.signature(record).parameters.values())
    assert differences(expected, actual) == []
    assert dataclasses.is_dataclass(record)
    assert vars(record)["__dataclass_params__"].frozen
    assert {field.name for field in dataclasses.fields(record)} >= {p.name for p in expected}


@pytest.mark.parametrize("name", ENUMS)
def test_an_enum_has_the_values_of_the_header(name: str) -> None:
    actual = public_class(name)
    assert issubclass(actual, enum.IntEnum | enum.IntFlag)
    assert {member: actual.__members__.get(member) for member in ENUMS[name]} == ENUMS[name]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_what_python_programs_catch(name: str) -> None:
    assert issubclass(public_class(name), (softndk.NdkError,))
    assert issubclass(public_class(name), (ERRORS[name],))


@pytest.mark.parametrize("name", sorted(NDK_OBJECTS - LATER))
def test_an_object_has_the_common_part(name: str) -> None:
    assert issubclass(public_class(name), softndk.NdkObject)


def test_constants() -> None:
    assert softndk.PAGE_SIZE == 4096
    assert softndk.MAXULONG == 0xFFFFFFFF
    assert softndk.NdkVersion(2, 1)._asdict() == {"major": 2, "minor": 1}


# ---- the comparison itself can fail -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "complaint"),
    [
        ("a, *, c=...", "no parameter b"),
        ("b=..., a=..., *, c=...", "b is not number 2"),
        ("a, b=..., c=...", "c is positional or keyword, not keyword-only"),
        ("a, b, *, c=...", "b has no default"),
        ("a, b=..., *, c=..., d", "d is new and has no default"),
    ],
)
def test_a_changed_signature_is_noticed(actual: str, complaint: str) -> None:
    assert complaint in differences(shape("a, b=..., *, c=..."), shape(actual))


def test_an_added_optional_parameter_is_free() -> None:
    assert differences(shape("a, *, c=..."), shape("a, b=..., *, c=..., d=...")) == []
