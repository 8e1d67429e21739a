"""The warm-up's labels follow from the facts, its patches are the processor's, and its tower learns to see."""

import numpy as np
import pytest
import torch

from owlcap.config import ModelSection
from owlcap.data.prompts import encode_prompt
from owlcap.data.toy.render import render
from owlcap.data.toy.scene import make_scene
from owlcap.errors import DataError
from owlcap.models.load import load_policy, load_processor
from owlcap.models.warmup import UNKNOWN, Patcher, Warmup, make_labels, mirror_tables
from owlcap.types import Fact, Sample, VideoClip


def sample(name: str, details: dict[str, str], actions: list[str]) -> Sample:
    facts = [Fact(f"{kind}={value}", "detail") for kind, value in details.items()]
    facts += [Fact(f"action={action}", "motion") for action in actions]
    return Sample(name, f"{name}.mp4", "Describe.", "A caption.", "A caption.", tuple(facts))


def test_details_become_one_question_a_word():
    labels = make_labels(
        [
            sample("a", {"shirt": "red", "object": "blue ball left"}, ["jump", "bow"]),
            sample("b", {"shirt": "green", "object": "blue cone right"}, ["bow", "jump"]),
        ],
        num_frames=6,
    )
    assert labels.questions == ("shirt", "object 1", "object 2", "object 3", "action")
    assert labels.classes == (("green", "red"), ("blue",), ("ball", "cone"), ("left", "right"), ("bow", "jump"))
    assert labels.details.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        # 6 frames, pairs start at 0 to 4. Of two actions, either may take up to two thirds: the middle is unknown.
        (["a", "b"], [0, UNKNOWN, UNKNOWN, UNKNOWN, 1]),
        # Three take a third each; a pair across a cut shows both.
        (["c", "a", "b"], [2, UNKNOWN, 0, UNKNOWN, 1]),
        (["b"], [1, 1, 1, 1, 1]),
    ],
)
def test_actions_are_known_where_they_surely_fill_a_pair(actions, expected):
    rows = [sample("x", {"shirt": "red"}, actions), sample("y", {"shirt": "red"}, ["c", "a", "b"])]
    assert make_labels(rows, num_frames=6).actions[0].tolist() == expected


def test_a_mirrored_picture_has_left_and_right_exchanged():
    rows = [sample("x", {"side": "left"}, ["walk_left", "jump"]), sample("y", {"side": "right"}, ["walk_right"])]
    tables = mirror_tables(make_labels(rows, 6))
    assert tables is not None
    assert [table.tolist() for table in tables] == [[1, 0], [0, 2, 1]]  # left, right; jump, walk_left, walk_right


def test_without_the_mirrored_class_nothing_is_mirrored():
    assert mirror_tables(make_labels([sample("x", {"side": "left"}, ["jump"])], 6)) is None


@pytest.mark.parametrize(("details", "actions"), [({}, []), ({"hat": "red"}, ["bow"]), ({"shirt": "red"}, [])])
def test_rows_without_the_same_facts_are_a_data_error_that_names_them(details, actions):
    with pytest.raises(DataError) as caught:
        make_labels([sample("a", {"shirt": "red"}, ["bow"]), sample("b", details, actions)], 6)
    assert caught.value.where == "b"


def test_patches_are_the_processors(tiny_policy):
    processor = load_processor(tiny_policy)
    frames = np.random.default_rng(0).integers(0, 256, (4, 56, 84, 3), np.uint8)
    prompt = encode_prompt(processor, VideoClip(frames, 6.0, 1.0, 4, (0, 1, 2, 3)), sample("a", {}, []), 100)
    patches, grid = Patcher(processor)(torch.from_numpy(frames).unflatten(0, (2, 2)))
    assert np.allclose(patches.numpy(), prompt.vision.pixel_values_videos, atol=1e-5)
    assert grid.tolist() == [[1, 4, 6], [1, 4, 6]]


@pytest.fixture(scope="module")
def toy_pictures():
    """120 toy clips as samples and frames."""
    scenes = [make_scene("train", 0, index) for index in range(120)]
    samples = [Sample(str(i), "-", "Describe.", "-", "-", scene.facts) for i, scene in enumerate(scenes)]
    return samples, torch.from_numpy(np.stack([render(s, width=56, height=56, num_frames=12) for s in scenes]))


def warmed_up(tiny_policy, toy_pictures, num_steps: int):
    samples, frames = toy_pictures
    section = ModelSection(path=str(tiny_policy), dtype="fp32", freeze_vision=False, gradient_checkpointing=False)
    model = load_policy(section)
    warmup = Warmup(model, load_processor(tiny_policy), make_labels(samples, 12), seed=0)
    warmup.train(frames, range(100), num_steps, None)
    return model, warmup.accuracies(frames, range(100, 120))


def test_the_tower_learns_to_see_clips_it_was_not_trained_on(tiny_policy, toy_pictures):
    _, accuracies = warmed_up(tiny_policy, toy_pictures, 60)
    assert set(accuracies) == {
        "shirt", "trousers", "object 1", "object 2", "object 3", "background", "people", "action",
    }  # fmt: skip
    assert accuracies["background"] > 0.6  # one of six
    assert accuracies["object 1"] > 0.5  # one of four


def test_features_are_brought_to_size_1_and_read_the_same(tiny_policy, toy_pictures):
    samples, frames = toy_pictures
    section = ModelSection(path=str(tiny_policy), dtype="fp32", freeze_vision=False, gradient_checkpointing=False)
    model, processor = load_policy(section), load_processor(tiny_policy)
    warmup = Warmup(model, processor, make_labels(samples, 12), seed=0)
    before = warmup.accuracies(frames, range(20))
    warmup.normalize(frames, range(20))
    patches, grid = Patcher(processor)(frames[:20].flatten(0, 1).unflatten(0, (-1, 2)))
    assert model.model.visual(patches, grid_thw=grid).pooler_output.square().mean().item() == pytest.approx(1)
    assert warmup.accuracies(frames, range(20)) == before


def test_only_the_tower_changes_and_the_same_seed_gives_the_same(tiny_policy, toy_pictures):
    before = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))
    first, second = (warmed_up(tiny_policy, toy_pictures, 3)[0] for _ in range(2))
    changed = {n for n, p in first.named_parameters() if not torch.equal(p, before.get_parameter(n))}
    assert changed == {n for n, _ in first.named_parameters() if ".visual." in n}
    assert all(torch.equal(p, second.get_parameter(n)) for n, p in first.named_parameters())
