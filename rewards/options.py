"""Options of one reward term: a dict from YAML becomes a checked section, or a ConfigError that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from owlcap.config import Section
from owlcap.errors import ConfigError

S = TypeVar("S", bound=Section)


def parse_options(schema: type[S], options: Mapping[str, Any], *, reward: str) -> S:
    """Check `options` against `schema`.

    Raises:
        ConfigError: an unknown or ill-typed option; names the option, the known ones and the nearest.
    """
    known = list(schema.model_fields)
    unknown = [key for key in options if key not in schema.model_fields]
    where = f"options of the reward {reward}"
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), known, n=1, cutoff=0.5)
        raise ConfigError(
            f'unknown option "{unknown[0]}"',
            where=where,
            allowed=", ".join(known) or "none: this reward has no options",
            cure=f'did you mean "{close[0]}"?' if close else f'remove "{unknown[0]}"',
        )
    try:
        return schema.model_validate(dict(options))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(problems), where=where, allowed=", ".join(known)) from error
