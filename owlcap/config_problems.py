"""What pydantic found wrong with a run, told as a user needs it: key, value, place, allowed, nearest key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from owlcap.errors import ConfigError

Key = tuple[str | int, ...]

KIND_OF_VALUE = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "model": "a section of keys",
    "dict": "a section of keys",
}
BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
BOUND_WORDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that cannot be used."""

    what: str
    where: str | None
    allowed: str | None
    cure: str | None


def describe_invalid(
    schema: type[BaseModel], error: ValidationError, path: str, place: Callable[[Key], str | None]
) -> ConfigError:
    """Turn a validation error into one ConfigError that tells every problem.

    Args:
        schema: the section that was validated.
        error: what pydantic raised.
        path: the configuration's file, named where no closer place is known.
        place: tells where a key was given ("toy.yaml:12", "override seed=x"), or None.
    """
    problems = [_problem(schema, details, path, place) for details in error.errors(include_url=False)]
    if len(problems) == 1:
        only = problems[0]
        return ConfigError(only.what, where=only.where, allowed=only.allowed, cure=only.cure)
    told = [str(ConfigError(p.what, where=p.where, allowed=p.allowed, cure=p.cure)) for p in problems]
    listed = "\n".join("- " + one.replace("\n", "\n  ") for one in told)
    return ConfigError(f"{len(problems)} settings of {path} cannot be used\n{listed}")


def _problem(schema: type[BaseModel], details: ErrorDetails, path: str, place: Callable[[Key], str | None]) -> Problem:
    key, kind, context = details["loc"], details["type"], details.get("ctx", {})
    name, where = spell(key), place(key) or path
    if kind == "extra_forbidden":
        fields = fields_at(schema, key[:-1])
        nearest = difflib.get_close_matches(str(key[-1]), fields, n=1)
        section = f"keys of {spell(key[:-1])}" if len(key) > 1 else "keys"
        return Problem(
            f"unknown key {name} (value {details['input']!r})",
            where,
            f"{section}: {', '.join(fields)}",
            f"did you mean {nearest[0]}?" if nearest else None,
        )
    if kind == "missing":
        return Problem(f"{name} has no value", where, allowed_at(schema, key), f"add it to the file, or {name}=VALUE")
    if kind == "value_error":
        reason = details["msg"].removeprefix("Value error, ")
        return Problem(f"{name}: {reason}" if name else reason, where, None, None)
    return Problem(f"{name} is {details['input']!r}", where, _allowed(kind, context, details["msg"]), None)


def _allowed(kind: str, context: dict[str, Any], message: str) -> str:
    """Say what a field would have taken, from pydantic's error type ("int_parsing", "greater_than", ...)."""
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind in BOUNDS:
        bound = BOUNDS[kind]
        return f"{BOUND_WORDS[bound]} {context[bound]}"
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    return KIND_OF_VALUE.get(kind.partition("_")[0]) or message


def spell(key: Key) -> str:
    """Write a key as a user would: ("rewards", "terms", 0, "name") -> rewards.terms[0].name"""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def fields_at(schema: type[BaseModel], key: Key) -> list[str]:
    """List the keys of the section found at `key`; empty where there is no section."""
    section = _annotation_at(schema, key)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def allowed_at(schema: type[BaseModel], key: Key) -> str | None:
    """Say what kind of value the field at `key` takes."""
    annotation = _annotation_at(schema, key)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(annotation))
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, BaseModel):
        return f"a section of keys: {', '.join(annotation.model_fields)}"
    return KIND_OF_VALUE.get({"str": "string"}.get(annotation.__name__, annotation.__name__))


def _annotation_at(schema: type[BaseModel], key: Key) -> Any:
    """Return the type of the field at `key`, without its `| None`; lists give their items' type."""
    found: Any = schema
    for part in key:
        if isinstance(part, int):
            found = next(iter(typing.get_args(found)), None)
        elif isinstance(found, type) and issubclass(found, BaseModel) and part in found.model_fields:
            found = found.model_fields[part].annotation
        else:
            return None
        if typing.get_origin(found) in (typing.Union, UnionType):
            found = next((one for one in typing.get_args(found) if one is not NoneType), None)
    return found
