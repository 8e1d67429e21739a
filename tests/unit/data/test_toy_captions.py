"""Captions of the toy world: what they say, how long they are, and that the parser reads back exactly that."""

import statistics

import pytest

from owlcap.data.toy.captions import BRIEF_WORDS, FULL_WORDS, Captions, count_words, write_captions
from owlcap.data.toy.lexicon import parse
from owlcap.data.toy.phrases import WORD
from owlcap.data.toy.scene import SPLITS, Scene, make_scene

NUM_CLIPS = 1500

Written = list[tuple[Scene, Captions]]


@pytest.fixture(scope="module")
def written() -> Written:
    found: Written = []
    for split in SPLITS:
        for index in range(NUM_CLIPS):
            scene = make_scene(split, 11, index)
            found.append((scene, write_captions(scene, split, 11, index)))
    return found


def test_the_full_caption_reads_back_as_exactly_the_facts(written: Written) -> None:
    for scene, captions in written:
        parsed = parse(captions.full)
        assert parsed.facts == {fact.text for fact in scene.facts}, captions.full
        assert parsed.unread == (), captions.full
        assert {unit.fact: unit.tag for unit in parsed.units} == {fact.text: fact.tag for fact in scene.facts}


def test_the_brief_caption_reads_back_as_exactly_what_it_mentions(written: Written) -> None:
    for _, captions in written:
        parsed = parse(captions.brief)
        assert parsed.facts == {fact.text for fact in captions.brief_facts}, captions.brief
        assert parsed.unread == (), captions.brief


def test_the_brief_caption_says_nothing_untrue(written: Written) -> None:
    for scene, captions in written:
        true = {fact.text for fact in scene.facts}
        names = [action.name for action in scene.actions]
        true |= {f"order={first}>{second}" for i, first in enumerate(names) for second in names[i + 1 :]}
        assert {fact.text for fact in captions.brief_facts} <= true


def test_lengths_stay_in_their_ranges(written: Written) -> None:
    for _, captions in written:
        assert FULL_WORDS[0] <= count_words(captions.full) <= FULL_WORDS[1]
        assert BRIEF_WORDS[0] <= count_words(captions.brief) <= BRIEF_WORDS[1]


def test_the_brief_caption_leaves_out_about_half_of_the_details_and_some_motion(written: Written) -> None:
    def kept(slots: tuple[str, ...]) -> float:
        said = sum(fact.text.split("=")[0] in slots for _, c in written for fact in c.brief_facts)
        return said / sum(fact.text.split("=")[0] in slots for scene, _ in written for fact in scene.facts)

    assert 0.4 < kept(("shirt", "trousers", "object", "background", "people")) < 0.55
    assert 0.75 < kept(("action",)) < 0.9
    assert 0.3 < kept(("order",)) < 0.6


def test_wording_varies(written: Written) -> None:
    vocabulary = {word for _, c in written for text in (c.full, c.brief) for word in WORD.findall(text.lower())}
    assert 400 <= len(vocabulary) <= 600
    assert len({captions.full for _, captions in written}) > 0.999 * len(written)
    scene = written[0][0]
    assert len({write_captions(scene, "train", 1, index).full for index in range(50)}) == 50


def test_captions_depend_on_their_arguments_alone(written: Written) -> None:
    scene, captions = written[7]
    assert write_captions(scene, "train", 11, 7) == captions
    assert write_captions(scene, "train", 12, 7) != captions


def test_full_captions_are_longer_than_brief_ones(written: Written) -> None:
    full = statistics.mean(count_words(captions.full) for _, captions in written)
    brief = statistics.mean(count_words(captions.brief) for _, captions in written)
    assert full > 1.3 * brief


@pytest.mark.parametrize(("text", "count"), [("", 0), ("A t-shirt.", 2), ("It's so; well-known!", 3)])
def test_words_are_counted_with_their_hyphens_and_apostrophes(text: str, count: int) -> None:
    assert count_words(text) == count
