"""A deterministic judge of plain English: tables and local rules, no model.

tables.py, words.py   words that are the same, and words that exclude one another
tagging.py            the role of each word          reading.py   text -> sentences -> a Caption
clauses.py            clauses and noun phrases       units.py     a Caption -> its smallest statements
match.py              labels of one caption's statements against the other caption

What it gets wrong is told in docs/lexical-judge.md.
"""

from __future__ import annotations

from owlcap.types import Label, Unit
from rewards.english.match import Content, Matcher
from rewards.english.reading import read
from rewards.english.units import Statement, statements

MIN_UNITS_OF_A_SCENE = 6  # a caption of fewer units may be true and unmentioned as a whole
SAME_SCENE_SHARE = 0.25  # of a caption's units supported; below it the caption tells of another scene


def judge_english(predicted: str, reference: str) -> tuple[tuple[Unit, ...], tuple[Unit, ...]]:
    """Units of both captions, each labelled against the whole other one; no reference units: it cannot be read.

    Unread fragments of the prediction are contradicted units, so that gibberish and talk to the judge cost
    correctness; those of the reference are left out.
    """
    said, truth = read(predicted), read(reference)
    own, other = Content(said), Content(truth)
    predicted_units, reference_units = statements(said), statements(truth)
    labels = _one_scene([Matcher(own, other).label(unit) for unit in predicted_units])
    unread = [Unit(text, "detail", "contradicted") for text in dict.fromkeys(said.unread)]
    back = Matcher(other, own)
    return (
        (*map(_unit, predicted_units, labels), *unread),
        tuple(_unit(unit, back.label(unit)) for unit in reference_units),
    )


def _one_scene(labels: list[Label]) -> list[Label]:
    """A reference tells one scene: a caption that shares almost nothing with it tells of another, and is wrong."""
    shared = labels.count("supported")
    if len(labels) < MIN_UNITS_OF_A_SCENE or shared >= SAME_SCENE_SHARE * len(labels):
        return labels
    return ["contradicted" if label == "not_mentioned" else label for label in labels]


def _unit(statement: Statement, label: Label) -> Unit:
    return Unit(statement.text, statement.tag, label)
