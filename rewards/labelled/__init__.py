"""The labelled set: captions whose order of quality is known by construction, and statements with their labels.

`read_rows()` reads the files beside this one, which ship with the project and are written by
tools/make_labelled_set.py: `english.jsonl` (hand-written) and `toy.jsonl` (the toy world's own captions).

Candidates of a row, best first: paraphrase > omission (one fact left out) > wrong ... (one fact wrong, by kind) or
clause left out (these two are not compared) > several wrong > off topic. A candidate with `built_on` is another
candidate with something added that is worth nothing (repetition, padding, gibberish, instructions to the judge): it
must not score above that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from owlcap.errors import DataError
from owlcap.types import Label

FOLDER = Path(__file__).resolve().parent
FILES = ("english.jsonl", "toy.jsonl")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One caption of a row. `level` (5 best, 1 worst) or `built_on` (the kind of another candidate) is given."""

    kind: str
    caption: str
    level: int | None = None
    built_on: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledStatement:
    """A statement and what a right judge says of it against the row's reference."""

    text: str
    label: Label


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A reference with its candidates and statements. The judge was never tuned on `held_out` rows."""

    id: str
    world: Literal["english", "toy"]
    theme: str
    split: Literal["tuning", "held_out"]
    reference: str
    candidates: tuple[Candidate, ...]
    statements: tuple[LabelledStatement, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates of a row: `better` must score more than `worse`, or (`strict` false) at least as much."""

    kind: str
    better: Candidate
    worse: Candidate
    strict: bool


_ROW = TypeAdapter(LabelledRow)


def read_rows(path: Path | None = None) -> list[LabelledRow]:
    """Rows of a JSONL file; without one, of the set that ships with the project.

    Raises:
        DataError: a file that cannot be read, or a line that is no row.
    """
    files = [path] if path is not None else [FOLDER / name for name in FILES]
    return [row for file in files for row in _read_file(file)]


def _read_file(file: Path) -> Iterator[LabelledRow]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the labelled set cannot be read: {error}", where=str(file)) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _ROW.validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"not a labelled row: {key + ': ' if key else ''}{first['msg']}",
                where=f"{file}:{number}",
                allowed="id, world, theme, split, reference, candidates and statements, as in rewards/labelled",
            ) from error
        _check(row, f"{file}:{number}")
        yield row


def _check(row: LabelledRow, where: str) -> None:
    kinds = [candidate.kind for candidate in row.candidates]
    for candidate in row.candidates:
        if (candidate.level is None) == (candidate.built_on is None):
            raise DataError(f'the candidate "{candidate.kind}" needs a level or a built_on', where=where)
        if candidate.built_on is not None and candidate.built_on not in kinds:
            raise DataError(
                f'the candidate "{candidate.kind}" is built on "{candidate.built_on}", which the row lacks',
                where=where,
                allowed=", ".join(kinds),
            )


def comparisons(row: LabelledRow) -> Iterator[Comparison]:
    """Every pair of candidates of a row whose order is known."""
    by_kind = {candidate.kind: candidate for candidate in row.candidates}
    for worse in row.candidates:
        if worse.built_on is not None:
            yield Comparison(f"{worse.kind} must not gain", by_kind[worse.built_on], worse, strict=False)
            continue
        for better in row.candidates:
            if better.level is not None and worse.level is not None and better.level > worse.level:
                first = "one wrong" if better.kind.startswith("wrong ") else better.kind
                kind = f"{first} over {worse.kind}"
                yield Comparison(kind, better, worse, strict=True)
