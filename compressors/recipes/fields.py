"""Reads a step's fields from JSON or YAML: names and types are checked, so that no later line has to doubt them."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Step


def read_fields(configuration: type[Step], document: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for `configuration` out of a document's fields. Raises InvalidRecipe with field, value and remedy."""
    technique = configuration.technique
    hints = _hints(configuration)
    known = {field.name for field in dataclasses.fields(configuration)}
    for earlier, name in configuration.renamed.items():
        if earlier in document and name in document:
            raise InvalidRecipe(
                f"{technique}.{earlier}: the earlier name of {name}, which is given too; drop {earlier}"
            )
    document = {configuration.renamed.get(name, name): value for name, value in document.items()}
    for name in document:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidRecipe(f"{technique}.{name}: no such field; {hint}known are {sorted(known)}")
    return {name: _value(f"{technique}.{name}", value, hints[name]) for name, value in document.items()}


_HINTS: dict[type[Step], Mapping[str, Any]] = {}


def _hints(configuration: type[Step]) -> Mapping[str, Any]:
    """Kept: evaluating annotations costs far more than reading a step does, and a job has thousands of recipes."""
    if configuration not in _HINTS:
        _HINTS[configuration] = typing.get_type_hints(configuration)
    return _HINTS[configuration]


def _value(field: str, value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _any_of(field, value, arguments)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            choices = ", ".join(str(choice) for choice in arguments)
            raise InvalidRecipe(f"{field}={value!r}: must be one of {choices}")
        return value
    if origin is tuple:
        return _tuple(field, value, arguments)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InvalidRecipe(f"{field}={value!r}: must be a mapping")
        return {
            _value(f"{field} key", k, arguments[0]): _value(f"{field}[{k!r}]", v, arguments[1])
            for k, v in value.items()
        }
    return _scalar(field, value, hint)


def _any_of(field: str, value: Any, choices: Sequence[Any]) -> Any:
    problems = []
    for choice in choices:
        if choice is type(None):
            if value is None:
                return None
            continue
        try:
            return _value(field, value, choice)
        except InvalidRecipe as problem:
            problems.append(problem)
    raise problems[0]


def _tuple(field: str, value: Any, arguments: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidRecipe(f"{field}={value!r}: must be a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_value(f"{field}[{i}]", item, arguments[0]) for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise InvalidRecipe(f"{field}={value!r}: must hold {len(arguments)} values")
    return tuple(
        _value(f"{field}[{i}]", item, hint) for i, (item, hint) in enumerate(zip(value, arguments, strict=True))
    )


def _scalar(field: str, value: Any, hint: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise InvalidRecipe(f"{field}={value!r}: must be {words.get(hint, hint.__name__)}")
    return value
