"""Saved captions: what `owlcap score` and `owlcap compare` read, row by row, without a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.data.text_file import parse_json
from owlcap.errors import DataError, RewardError
from owlcap.types import Sample
from rewards.adapters.shared import make_sample

ALLOWED = (
    '{"id", "reference", "caption"}, with "captions": [...], or a run\'s rollouts row (completions[].text); '
    '"questions" and "keypoints" where a reward asks for them'
)


@dataclass(frozen=True, slots=True)
class SavedGroup:
    """Captions of one clip, as saved."""

    sample: Sample
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What some files hold."""

    num_groups: int
    num_captions: int
    num_characters: int  # of each caption and its reference
    repeated_ids: tuple[str, ...]  # of more than one group, as in the rollouts of several steps


def read_groups(paths: Sequence[Path]) -> Iterator[SavedGroup]:
    """The groups of JSONL files, one at a time; rollouts rows of failed prompts are left out.

    Raises:
        DataError: a file cannot be read, or a row has another form; names file and line.
    """
    for path in paths:
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    group = _group(line, f"{path}:{number}") if line.strip() else None
                    if group is not None and group.captions:
                        yield group
        except OSError as error:
            raise DataError(f"the captions cannot be read: {error}", where=str(path)) from error


def look_through(paths: Sequence[Path]) -> Contents:
    """Read all rows once, so that a bad one is told before any is scored.

    Raises:
        DataError: as `read_groups`; or there are no captions.
    """
    ids: Counter[str] = Counter()
    captions = characters = 0
    for group in read_groups(paths):
        ids[group.sample.id] += 1
        captions += len(group.captions)
        characters += sum(len(caption) + len(group.sample.reference) for caption in group.captions)
    if not captions:
        where = ", ".join(map(str, paths))
        raise DataError("there are no captions", where=where, allowed=f"one group a line: {ALLOWED}")
    return Contents(ids.total(), captions, characters, tuple(id for id, count in ids.items() if count > 1))


def text_id(value: object) -> str | None:
    """An id as text, of a number its digits; None for what is neither."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def fault_of(error: Exception) -> str:
    """What is wrong with a JSON file of ours, in words, by the error that reading it raised."""
    if isinstance(error, json.JSONDecodeError):
        return f"it is no whole JSON, line {error.lineno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return str(error) if isinstance(error, ValueError) else "a part of it has another form"


def json_text(value: object, indent: int | None = None) -> str:
    """JSON with letters as they are; where a caption holds what no file can (half a surrogate pair), escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def _group(line: bytes, where: str) -> SavedGroup:
    try:
        row = parse_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError("the row is not UTF-8 text", where=where) from error
    except ValueError as error:
        raise DataError(f"broken JSON: {error}", where=where, allowed=ALLOWED) from error
    try:
        id, reference, captions = text_id(row["id"]), row["reference"], _captions(row, where)
        if id is None:
            raise DataError("the id is neither a text nor a whole number", where=where, allowed=ALLOWED)
        sample = make_sample(reference, id, row.get("questions"), row.get("keypoints"))
    except KeyError as error:
        raise DataError(f"the row has no {error}", where=where, allowed=ALLOWED) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError("the row has another form", where=where, allowed=ALLOWED) from error
    except RewardError as error:
        raise DataError(error.what, where=where, allowed=ALLOWED) from error
    if not all(isinstance(text, str) for text in captions):
        raise DataError("reference and captions must be strings", where=where, allowed=ALLOWED)
    return SavedGroup(sample, tuple(captions))


def _captions(row: dict[str, Any], where: str) -> list[Any]:
    given = [name for name in ("completions", "captions", "caption") if name in row]
    if len(given) > 1:
        raise DataError(f"the row has {' and '.join(given)}", where=where, cure="keep one of them")
    if "completions" in row:
        return [completion["text"] for completion in row["completions"]]
    captions = row["captions"] if "captions" in row else [row["caption"]]
    if not isinstance(captions, list):
        raise TypeError
    return captions
