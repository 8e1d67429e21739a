"""The parser of toy captions: units, order, broken text, and whether two captions agree."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owlcap.data.toy.captions import write_captions
from owlcap.data.toy.lexicon import ParsedUnit, Slot, agreement, parse
from owlcap.data.toy.scene import SPLITS, Split, make_scene


def facts(text: str) -> set[str]:
    return set(parse(text).facts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A person in a red shirt.", {"shirt=red"}),
        ("the crimson jersey", {"shirt=red"}),
        ("RED SHIRT", {"shirt=red"}),
        ("The top is azure", {"shirt=blue"}),
        ("ivory slacks", {"trousers=white"}),
        ("a red shirt and a blue shirt", {"shirt=red", "shirt=blue"}),
        ("a red shirt and a crimson top", {"shirt=red"}),
        ("a yellow ball lies on the left", {"object=yellow ball left"}),
        ("on the right there is a golden sphere", {"object=yellow ball right"}),
        ("a yellow ball", {"object=yellow ball"}),
        ("a ball on the left side", {"object=ball left"}),
        ("a ball. There is a yellow ball at the left", {"object=yellow ball left"}),
        (
            "a red box on the left and a blue cone on the right",
            {"object=red box left", "object=blue cone right"},
        ),
        (
            "on the left there is a red box and on the right a blue cone",
            {"object=red box left", "object=blue cone right"},
        ),
        ("in a meadow", {"background=grass"}),
        ("two bystanders stand still", {"people=3"}),
        ("two people are in view", {"people=2"}),
        ("someone raises the left arm", {"action=raise_left_arm"}),
        ("someone raising left arm", {"action=raise_left_arm"}),
        ("lift the right hand", {"action=raise_right_arm"}),
        ("walks toward the left", {"action=walk_left"}),
        ("bends forward", {"action=bow"}),
        ("bends both knees", {"action=squat"}),
    ],
)
def test_statements_are_read(text: str, expected: set[str]) -> None:
    assert facts(text) == expected
    assert parse(text).unread == ()


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("A person jumps, then bows.", {"jump>bow"}),
        ("A person jumps before bowing.", {"jump>bow"}),
        ("A person bows after jumping.", {"jump>bow"}),
        ("After jumping, a person bows.", {"jump>bow"}),
        ("Before bowing, a person jumps.", {"jump>bow"}),
        ("In a meadow, after jumping, a person bows.", {"jump>bow"}),
        ("A person jumps. After that, someone bows.", {"jump>bow"}),
        ("A person starts by jumping and ends by bowing.", {"jump>bow"}),
        ("First a person jumps, next squats, finally bows.", {"jump>squat", "squat>bow"}),
        ("A person jumps, then squats before bowing.", {"jump>squat", "squat>bow"}),
        ("After jumping, a person squats and then bows.", {"jump>squat", "squat>bow"}),
        ("A person squats after jumping and then bows.", {"jump>squat", "squat>bow"}),
        ("A person jumps and bows.", set()),
        ("A person jumps, bows.", set()),
        ("A person jumps. Someone bows.", set()),
        ("A person jumps and squats, then bows.", {"squat>bow"}),
        ("A person jumps. After squatting, someone bows.", {"squat>bow"}),
        ("A person jumps, then bows, then jumps.", {"jump>bow", "bow>jump"}),
        ("A person jumps and then leaps.", set()),
    ],
)
def test_order_is_read_only_where_it_is_stated(text: str, orders: set[str]) -> None:
    assert set(parse(text).values("order")) == orders


def test_units_carry_tag_and_the_words_they_came_from() -> None:
    parsed = parse("In a Red Shirt, someone kicks with the left leg and then jumps.")
    assert [(unit.fact, unit.tag, unit.text) for unit in parsed.units] == [
        ("shirt=red", "detail", "Red Shirt"),
        ("action=kick_left_leg", "motion", "kicks with the left leg"),
        ("action=jump", "motion", "jumps"),
        ("order=kick_left_leg>jump", "motion", "kicks with the left leg and then jumps"),
    ]


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("", ()),
        (" .,!", ()),
        ("flub gnarp", ("flub gnarp",)),
        ("A person in a red", ("red",)),
        ("A person raises the arm.", ("raises the arm",)),
        ("On the left a person jumps.", ("On the left",)),
        ("A person kicks.", ("kicks",)),
        ("A person in a red shirt. There is.", ("There is",)),
        ("A person jumps 舞 ��.", ("舞 ��",)),
        ("A person jumps jumps.", ("jumps",)),
        ("A person jumps and then and then bows.", ("and then",)),
        ("There there there is a red box.", ("there there",)),
        (
            "A yellow ball lies on the left and a yellow ball lies on the left.",
            ("a yellow ball lies on the left",),
        ),
        ("Someone is there and with that who is in jumps.", ("Someone is there and with that who is in",)),
        ("please like and subscribe", ()),
        ("please like and", ("please like",)),
    ],
)
def test_what_says_nothing_is_unread(text: str, unread: tuple[str, ...]) -> None:
    assert parse(text).unread == unread


def test_a_phrase_does_not_reach_over_the_end_of_a_sentence() -> None:
    assert facts("a red. shirt") == set()
    assert facts("someone throws the left. arm up") == set()


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    parsed = parse(text)
    for unit in parsed.units:
        assert unit.text in text
    for fragment in parsed.unread:
        assert fragment in text
        assert fragment


@given(st.sampled_from(SPLITS), st.integers(0, 10**6), st.integers(0, 2**31))
@settings(max_examples=300, deadline=None)
def test_shuffled_words_leave_something_unread(split: Split, index: int, seed: int) -> None:
    scene = make_scene(split, seed, index)
    words = write_captions(scene, split, seed, index).full.lower().replace(".", "").replace(",", "").split()
    random.Random(index).shuffle(words)
    parsed = parse(" ".join(words))
    assert parsed.unread
    assert parse(" ".join(words)) == parsed


def unit(slot: Slot, value: str) -> ParsedUnit:
    return ParsedUnit(slot, value, value)


@pytest.mark.parametrize(
    ("slot", "value", "caption", "label"),
    [
        ("shirt", "red", "in a crimson top", "supported"),
        ("shirt", "red", "in a blue top", "contradicted"),
        ("shirt", "red", "in a blue top and a red shirt", "supported"),
        ("shirt", "red", "in blue pants", "not_mentioned"),
        ("people", "2", "three people are in view", "contradicted"),
        ("background", "snow", "in the snow", "supported"),
        ("object", "yellow ball left", "on the left there is a yellow ball", "supported"),
        ("object", "yellow ball", "on the left there is a yellow ball", "supported"),
        ("object", "yellow ball left", "a yellow ball", "not_mentioned"),
        ("object", "yellow ball left", "a yellow ball on the right", "contradicted"),
        ("object", "yellow ball left", "a red ball", "contradicted"),
        ("object", "yellow ball left", "a red box and a yellow ball on the left", "supported"),
        ("object", "yellow ball left", "someone jumps", "not_mentioned"),
        ("action", "jump", "someone leaps", "supported"),
        ("action", "jump", "someone bows", "not_mentioned"),
        ("action", "raise_left_arm", "someone raises the right arm", "contradicted"),
        ("action", "raise_left_arm", "someone raises the right arm and raises the left arm", "supported"),
        ("order", "jump>bow", "someone jumps, then bows", "supported"),
        ("order", "jump>bow", "someone jumps, then squats, then bows", "supported"),
        ("order", "jump>bow", "someone bows, then jumps", "contradicted"),
        ("order", "jump>bow", "someone jumps and bows", "not_mentioned"),
        ("order", "jump>squat", "someone jumps, then bows", "not_mentioned"),
    ],
)
def test_agreement_of_a_unit_with_a_caption(slot: Slot, value: str, caption: str, label: str) -> None:
    assert agreement(unit(slot, value), parse(caption)) == label


def test_every_unit_of_a_brief_caption_is_supported_by_the_full_one() -> None:
    for index in range(500):
        captions = write_captions(make_scene("train", 2, index), "train", 2, index)
        full = parse(captions.full)
        assert {agreement(said, full) for said in parse(captions.brief).units} == {"supported"}


def test_a_sentence_said_twice_is_unread():
    caption = parse("A person in a red shirt jumps. Two more people stand still. Two more people stand still.")
    assert [unit.fact for unit in caption.units] == ["shirt=red", "action=jump", "people=3"]
    assert caption.unread == ("Two more people stand still",)
