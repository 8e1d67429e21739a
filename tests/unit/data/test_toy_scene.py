"""Scenes of the toy world: their facts, their timing, and the combinations kept for the test split."""

import itertools
from dataclasses import replace

import pytest

from owlcap.data.toy.scene import (
    ACTIONS,
    OBJECT_COLORS,
    OBJECT_KINDS,
    SHIRTS,
    SPLITS,
    Scene,
    TimedAction,
    combinations,
    is_held_out,
    make_scene,
)
from owlcap.types import Fact

NUM_CLIPS = 1500


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {split: [make_scene(split, 0, index) for index in range(NUM_CLIPS)] for split in SPLITS}


def test_facts_list_details_then_actions_then_orders() -> None:
    scene = replace(
        make_scene("train", 0, 0),
        shirt="red",
        trousers="blue",
        object_color="yellow",
        object_kind="ball",
        object_side="left",
        background="grass",
        num_people=2,
        actions=(TimedAction("raise_left_arm", 0, 0.3), TimedAction("jump", 0.3, 0.6), TimedAction("bow", 0.6, 1)),
    )
    assert scene.facts == (
        Fact("shirt=red", "detail"),
        Fact("trousers=blue", "detail"),
        Fact("object=yellow ball left", "detail"),
        Fact("background=grass", "detail"),
        Fact("people=2", "detail"),
        Fact("action=raise_left_arm", "motion"),
        Fact("action=jump", "motion"),
        Fact("action=bow", "motion"),
        Fact("order=raise_left_arm>jump", "motion"),
        Fact("order=jump>bow", "motion"),
    )


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    assert make_scene("train", 3, 5) == make_scene("train", 3, 5)
    others = [make_scene("train", 4, 5), make_scene("train", 3, 6), make_scene("validation", 3, 5)]
    assert make_scene("train", 3, 5) not in others


def test_two_or_three_different_actions_fill_the_clip_without_gaps(scenes: dict[str, list[Scene]]) -> None:
    for scene in itertools.chain(*scenes.values()):
        names = [action.name for action in scene.actions]
        edges = [edge for action in scene.actions for edge in (action.start, action.end)]
        assert len(names) in (2, 3)
        assert len(set(names)) == len(names)
        assert edges[0] == 0.0
        assert edges[-1] == 1.0
        assert edges[1:-1:2] == edges[2::2]
        assert all(action.end - action.start >= 0.33 for action in scene.actions)


def test_there_are_ten_actions_and_all_come_first_and_last_in_every_split(scenes: dict[str, list[Scene]]) -> None:
    assert len(ACTIONS) >= 10
    for of_split in scenes.values():
        assert {scene.actions[0].name for scene in of_split} == set(ACTIONS)
        assert {scene.actions[-1].name for scene in of_split} == set(ACTIONS)


def test_those_who_stand_still_have_places_of_their_own(scenes: dict[str, list[Scene]]) -> None:
    for scene in scenes["train"]:
        assert len(set(scene.look.crowd)) == len(scene.look.crowd) == scene.num_people - 1


def test_no_tested_combination_is_ever_seen_in_training(scenes: dict[str, list[Scene]]) -> None:
    seen = {combination for split in ("train", "validation") for s in scenes[split] for combination in combinations(s)}
    tested = {combination for scene in scenes["test"] for combination in combinations(scene)}
    assert len(tested) > 1000
    assert not seen & tested


def test_a_fifth_of_the_combinations_is_held_out_and_every_pair_of_parts_stays_in_training() -> None:
    things = [f"{color} {kind}" for color in OBJECT_COLORS for kind in OBJECT_KINDS]
    pairs = [f"{first}>{second}" for first, second in itertools.permutations(ACTIONS, 2)]
    every = list(itertools.product(SHIRTS, things, pairs))
    kept = [combination for combination in every if not is_held_out(combination)]
    assert 0.75 < len(kept) / len(every) < 0.85
    for first, second in itertools.combinations(range(3), 2):
        parts = {(combination[first], combination[second]) for combination in every}
        assert {(combination[first], combination[second]) for combination in kept} == parts


def test_two_and_three_actions_are_equally_likely_in_every_split(scenes: dict[str, list[Scene]]) -> None:
    for of_split in scenes.values():
        share = sum(len(scene.actions) == 3 for scene in of_split) / len(of_split)
        assert 0.45 < share < 0.55
