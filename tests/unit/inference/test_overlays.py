"""Overlays for one clip that a policy is asked about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from owlcap.config import MotionSection
from owlcap.data.rows import read_rows
from owlcap.data.toy.world import make_toy_world
from owlcap.errors import ConfigError, DataError
from owlcap.inference.overlays import policy_motion, with_overlays
from owlcap.inference.settings import PolicySettings, write_settings
from owlcap.types import Sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("toy") / "data"
    world = make_toy_world(folder, num_train=1, num_validation=0, num_test=0, seed=0)
    return read_rows(world.train)[0]


@pytest.fixture
def motion(tmp_path: Path) -> MotionSection:
    extract = {"cache": str(tmp_path), "fps": 4, "min_pixels": 56 * 56, "max_pixels": 56 * 56}
    settings = {"pose": {"source": "toy"}, "key_frames": {"num_frames": 2}, "mesh": {"num_steps": 2}}
    return MotionSection.model_validate({"enabled": True, "extract": extract, **settings})


def test_a_clip_gets_a_picture_a_key_frame(sample: Sample, motion: MotionSection) -> None:
    found = with_overlays(sample, motion)
    assert len(found.overlays) == 2
    assert all(Path(path).is_file() for path in found.overlays)
    assert replace(found, overlays=()) == sample


def test_a_rows_own_overlays_and_the_pathway_off_leave_it_as_it_is(sample: Sample, motion: MotionSection) -> None:
    own = replace(sample, overlays=("mine.png",))
    assert with_overlays(own, motion) == own
    assert with_overlays(sample, MotionSection()) == sample


def test_a_clip_that_gives_none_is_an_error_or_shown_alone(motion: MotionSection, toy_clips: tuple[Path, ...]) -> None:
    stranger = Sample("a", str(toy_clips[0]), "Describe.", "", "")
    with pytest.raises(DataError, match="not one of the toy world"):
        with_overlays(stranger, motion)
    assert with_overlays(stranger, motion.model_copy(update={"missing": "visual"})) == stranger


# Motion settings of `owlcap caption`.


@pytest.fixture
def policy(tmp_path: Path, motion: MotionSection) -> Path:
    """A folder that keeps the motion settings of its training."""
    folder = tmp_path / "policy"
    folder.mkdir()
    write_settings(folder, PolicySettings(motion=motion))
    return folder


def test_what_nobody_names_is_as_the_policy_was_trained(policy: Path, motion: MotionSection, tmp_path: Path) -> None:
    assert policy_motion(policy, None, ()) == motion
    file = tmp_path / "motion.yaml"
    file.write_text("key_frames:\n  method: uniform\nmesh:\n  num_steps: 4\n")
    found = policy_motion(policy, str(file), ["mesh.num_steps=5", "motion.missing=visual"])
    assert found.key_frames == motion.key_frames.model_copy(update={"method": "uniform"})
    assert (found.mesh.num_steps, found.missing, found.pose, found.enabled) == (5, "visual", motion.pose, True)


def test_motion_settings_turn_the_pathway_on_where_no_one_kept_it(tmp_path: Path) -> None:
    assert not policy_motion(tmp_path, None, ()).enabled
    assert policy_motion(tmp_path, None, ["pose.source=toy"]).enabled
    assert not policy_motion(tmp_path, None, ["pose.source=toy", "enabled=false"]).enabled


def test_an_override_that_cannot_be_used_is_named_as_it_was_typed(policy: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_motion(policy, None, ["pose.max_gap=-1"])
    assert caught.value.where == "override pose.max_gap=-1"
