"""A model's captions or answers, from a file: one row a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from owlcap.errors import DataError
from owlcap.evaluation.benchmarks.files import json_lines
from owlcap.evaluation.benchmarks.values import Case
from owlcap.evaluation.saved import text_id

ALLOWED = '{"id": ..., "caption": "..."} on each line ("answer" instead of "caption" for questions)'


def read_texts(path: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Texts by case id from rows {"id", "caption" or "answer"}.

    An id is that of a case, or one that several cases share (one caption for all categories of VDC). A text for a
    case wins over a shared one.

    Raises:
        DataError: a broken row, an id twice, or an id that the annotations do not have; names file and line.
    """
    given: dict[str, str] = {}
    known = {case.id for case in cases} | {case.shared_id for case in cases}
    unknown: list[tuple[str, str]] = []
    for where, row in json_lines(path, ALLOWED):
        id_, text = _row(row, where)
        if id_ in given:
            raise DataError(f"the id {id_!r} occurs twice", where=where, cure="keep one text a case")
        if id_ not in known:
            unknown.append((id_, where))
        given[id_] = text
    if unknown:
        id_, where = unknown[0]
        raise DataError(
            f"{len(unknown)} ids are not among the annotations, the first is {id_!r}",
            where=where,
            allowed=" or ".join(dict.fromkeys((_range([c.id for c in cases]), _range([c.shared_id for c in cases])))),
            cure="give the annotations that these texts were made for",
        )
    shared = {case.id: given[case.shared_id] for case in cases if case.shared_id in given}
    return shared | {case.id: given[case.id] for case in cases if case.id in given}


def _range(ids: Sequence[str]) -> str:
    """The first and the last of them."""
    return repr(ids[0]) if ids[0] == ids[-1] else f"{ids[0]!r}, ..., {ids[-1]!r}"


def _row(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    id_, texts = text_id(row.get("id")), [row[name] for name in ("caption", "answer") if name in row]
    if id_ is None or len(texts) != 1 or not isinstance(texts[0], str):
        raise DataError("a row needs an id and one text", where=where, allowed=ALLOWED)
    return id_, texts[0]
