"""The renderer of the toy world and its mp4 files, read back by both decoders."""

import itertools
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from owlcap.data.toy.encode import write_mp4
from owlcap.data.toy.pose import STEP, Pose, pose_at
from owlcap.data.toy.render import PAINT, render
from owlcap.data.toy.scene import ACTIONS, SHIRTS, Look, Scene, TimedAction, make_scene

PLAIN_LOOK = Look(center=0.0, size=1.0, light=1.0, skin=0, hair=0, scenery=0, crowd=())


def scene_of(*actions: str, **changes: str) -> Scene:
    edges = [index / len(actions) for index in range(len(actions) + 1)]
    timed = tuple(TimedAction(name, *edge) for name, edge in zip(actions, itertools.pairwise(edges), strict=True))
    scene = Scene("red", "blue", "yellow", "ball", "left", "beach", 1, timed, PLAIN_LOOK)
    return replace(scene, **changes)


def frames_of(scene: Scene, num_frames: int = 12) -> np.ndarray:
    return render(scene, width=56, height=56, num_frames=num_frames)


def read_decord(path: Path) -> tuple[np.ndarray, float, list[float]]:
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(path))
    frames = reader.get_batch(range(len(reader))).asnumpy()
    return frames, reader.get_avg_fps(), [float(reader.get_frame_timestamp(i)[0]) for i in range(len(reader))]


def read_pyav(path: Path) -> tuple[np.ndarray, float, list[float]]:
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        decoded = list(container.decode(video=0))
    assert rate is not None
    times = [float(frame.time) for frame in decoded if frame.time is not None]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in decoded]), float(rate), times


READERS = pytest.mark.parametrize("read", [read_decord, read_pyav])


@READERS
def test_the_file_has_the_frames_at_their_times(tmp_path: Path, read) -> None:
    frames = frames_of(scene_of("jump", "bow"))
    write_mp4(tmp_path / "clip.mp4", frames, fps=6.0)
    decoded, fps, times = read(tmp_path / "clip.mp4")
    assert decoded.shape == (12, 56, 56, 3)
    assert fps == 6.0
    assert times == pytest.approx([index / 6 for index in range(12)], abs=1e-3)
    assert np.abs(decoded.astype(float) - frames).mean() < 2.5


@READERS
@pytest.mark.parametrize("shirt", SHIRTS)
def test_the_shirt_keeps_its_colour_through_the_file(tmp_path: Path, read, shirt: str) -> None:
    write_mp4(tmp_path / "clip.mp4", frames_of(scene_of("raise_left_arm", "jump", shirt=shirt)), fps=6.0)
    decoded, _, _ = read(tmp_path / "clip.mp4")
    chest = decoded[0, 24:31, 26:30].reshape(-1, 3).mean(0)
    nearest = min(SHIRTS, key=lambda color: float(np.abs(chest - PAINT[color]).sum()))
    assert nearest == shirt
    assert np.abs(chest - PAINT[shirt]).max() < 15


def test_two_files_of_the_same_frames_are_equal(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, frames_of(scene_of("jump", "bow")), fps=6.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(("width", "height", "num_frames"), [(56, 56, 12), (84, 84, 8), (112, 56, 16)])
def test_size_and_length_are_free(width: int, height: int, num_frames: int) -> None:
    frames = render(make_scene("train", 0, 0), width=width, height=height, num_frames=num_frames)
    assert frames.shape == (num_frames, height, width, 3)
    assert frames.dtype == np.uint8


def test_the_same_scene_gives_the_same_frames() -> None:
    scene = make_scene("train", 0, 4)
    assert np.array_equal(frames_of(scene), frames_of(scene))


@pytest.mark.parametrize(("first", "second"), itertools.combinations(ACTIONS, 2))
def test_any_two_actions_look_different_in_the_middle(first: str, second: str) -> None:
    one, other = frames_of(scene_of(first, "jump")), frames_of(scene_of(second, "jump"))
    changed = np.abs(one[2:4].astype(int) - other[2:4]).max(-1) > 40
    assert changed.mean() > 0.03  # of all pixels; a raised arm has about 4 %


@pytest.mark.parametrize("action", ["raise_{}_arm", "kick_{}_leg", "walk_{}"])
def test_sides_are_those_of_the_picture(action: str) -> None:
    at_rest = frames_of(replace(scene_of("jump"), actions=()))

    def place_of_change(side: str) -> float:
        moved = np.abs(frames_of(scene_of(action.format(side))).astype(int) - at_rest).max(-1) > 40
        return float(np.nonzero(moved)[2].mean())

    assert place_of_change("left") < 28 - 2
    assert place_of_change("right") > 28 + 2


def test_poses_reach_far_in_the_middle_of_each_action() -> None:
    middle = {name: pose_at([TimedAction(name, 0, 1)], 0.5) for name in ACTIONS}
    assert middle["raise_left_arm"].left_arm < -2.8
    assert middle["raise_left_arm"].right_arm == Pose().right_arm
    assert middle["raise_right_arm"].right_arm > 2.8
    assert middle["kick_left_leg"].left_leg < -1.4
    assert middle["kick_right_leg"].right_leg > 1.4
    assert middle["jump"].lift > 0.1
    assert middle["squat"].crouch == pytest.approx(1)
    assert middle["bow"].bow == pytest.approx(1)
    assert (middle["spread_arms"].left_arm, middle["spread_arms"].right_arm) == pytest.approx((-1.57, 1.57), abs=0.01)
    assert middle["walk_left"].shift == pytest.approx(-STEP / 2)
    assert middle["walk_right"].facing == 1


def test_a_walk_leaves_the_person_where_it_led() -> None:
    actions = [TimedAction("walk_left", 0, 0.4), TimedAction("jump", 0.4, 0.8), TimedAction("walk_right", 0.8, 1)]
    assert pose_at(actions, 0.6).shift == pytest.approx(-STEP)
    assert pose_at(actions, 0.9).shift == pytest.approx(-STEP / 2)


def test_order_shows_in_the_frames() -> None:
    forward, backward = frames_of(scene_of("jump", "bow")), frames_of(scene_of("bow", "jump"))
    assert np.array_equal(forward[:6], backward[6:])
    assert not np.array_equal(forward[:6], backward[:6])


def test_more_people_are_seen_as_more_people() -> None:
    alone = frames_of(scene_of("jump", "bow"))
    for num_people in (2, 3):
        look = replace(PLAIN_LOOK, crowd=tuple(range(num_people - 1)))
        crowd = frames_of(replace(scene_of("jump", "bow"), num_people=num_people, look=look))
        changed = (np.abs(crowd.astype(int) - alone).max(-1) > 25).mean()
        assert 0.01 * (num_people - 1) < changed < 0.06 * (num_people - 1)
