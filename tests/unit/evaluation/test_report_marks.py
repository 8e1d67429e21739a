"""Units are marked where a caption says them."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from owlcap.evaluation.run_report.marks import Stretch, find_predicted, find_units, stretches
from rewards.lexical import LexicalJudge

CAPTION = "A man in a red coat opens the door and waves. A dog sleeps on the mat."


def quoted(unit: str, caption: str = CAPTION) -> str | None:
    (span,) = find_units(caption, [unit])
    return None if span is None else caption[slice(*span)]


def test_a_unit_that_stands_there_word_for_word_is_found_whatever_its_case() -> None:
    assert quoted("opens the Door") == "opens the door"


def test_a_unit_is_not_found_inside_a_longer_word() -> None:
    assert quoted("a cat", "A catalogue lies there.") is None


def test_other_words_for_the_same_are_found_in_the_shortest_stretch_that_has_them() -> None:
    assert quoted("the coat is red") == "red coat"
    assert quoted("he waved") == "waves"
    assert quoted("the dog is sleeping") == "dog sleeps"


def test_a_stretch_does_not_reach_over_the_end_of_a_sentence() -> None:
    assert quoted("waving dog mat") == "dog sleeps on the mat"


def test_a_unit_whose_words_are_mostly_missing_is_not_marked() -> None:
    assert quoted("two green birds sit on the mat") is None
    assert quoted("") is None
    assert quoted("it is there") is None


def test_facts_of_the_toy_world_are_found_in_the_words_they_were_read_from() -> None:
    caption = "A person in a scarlet sweater squats and then bows."
    reference = "A person in a red sweater squats and then bows."
    judgement = asyncio.run(LexicalJudge().judge(caption, reference))
    spans = find_predicted(caption, judgement)
    found = {
        unit.text: caption[slice(*span)] for unit, span in zip(judgement.predicted_units, spans, strict=True) if span
    }
    assert judgement.judge == "lexical-toy"
    assert found["shirt=red"] == "scarlet sweater"
    assert found["action=bow"] == "bows"


def test_where_units_overlap_the_closest_fitting_comes_first() -> None:
    pieces = stretches("he opens the door", [(0, 17), (9, 17), None])
    assert pieces == (Stretch("he opens ", (0,)), Stretch("the door", (1, 0)))


def test_a_caption_without_units_is_one_stretch_and_an_empty_one_is_none() -> None:
    assert stretches("A man.", [None]) == (Stretch("A man.", ()),)
    assert stretches("", []) == ()


@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=5))
def test_stretches_are_the_caption_whatever_it_and_its_units_are(caption: str, units: list[str]) -> None:
    assert "".join(piece.text for piece in stretches(caption, find_units(caption, units))) == caption
