"""Where key points come from: each source on a small model of its own format, and what missing files say."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from motion.pose import build_pose_source
from motion.pose.detector import GivenBoxes, WholeFrame, build_detector
from motion.pose.source import find_people
from motion.pose.types import COCO17, FramePeople
from motion.pose.vitpose import crop_matrix, peaks, to_frame
from owlcap.config import VideoSection
from owlcap.config_motion import MotionSection, PoseSection
from owlcap.data.rows import read_rows
from owlcap.data.toy import make_toy_world
from owlcap.data.video import decode
from owlcap.errors import ConfigError, DataError, ModelError
from owlcap.registry import register
from owlcap.types import Sample, VideoClip

from .onnx_file import write_constant_model


def settings(**pose) -> MotionSection:
    return MotionSection(pose=PoseSection(**pose))


def clip_of(num_frames=2, height=128, width=96) -> tuple[VideoClip, Sample]:
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), np.uint8)
    return VideoClip(frames, 6.0, num_frames / 6, num_frames, tuple(range(num_frames))), Sample(
        "a", "a.mp4", "", "", ""
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    world = make_toy_world(tmp_path_factory.mktemp("toy") / "w", num_train=12, num_validation=0, num_test=0, seed=3)
    return read_rows(world.train)


def test_toy_wrists_and_shoulders_are_where_skin_and_shirt_are_drawn(toy):
    video = VideoSection(min_frames=2, min_pixels=224 * 224, max_pixels=224 * 224, fps=6)
    source = build_pose_source(settings(source="toy"))
    skin = shirt = 0
    for sample in toy:
        clip = decode(sample.video, video)
        frame, people = clip.frames[0], source.find(clip, sample)[0]
        named = dict(zip(COCO17, people.keypoints[0, :, :2], strict=True))
        paint = next(fact.text.split("=")[1] for fact in sample.facts if fact.text.startswith("shirt="))
        x, y = (named["left_shoulder"] + named["right_shoulder"]) / 2
        chest = frame[int(y + 12), int(x)].astype(int)
        shirt += {"red": 0, "green": 1, "blue": 2}.get(paint, int(chest.argmax())) == chest.argmax()
        x, y = named["right_wrist"].round().astype(int)
        hand = frame[y, x].astype(int)
        skin += hand[0] > hand[1] > hand[2]
    assert shirt == len(toy)
    assert skin >= len(toy) - 1  # a thing may stand before a hand


def test_toy_people_face_the_viewer_and_are_counted(toy):
    source = build_pose_source(settings(source="toy"))
    for sample in toy:
        clip = decode(sample.video, VideoSection(min_frames=2, fps=6))
        people = source.find(clip, sample)[0]
        said = [fact.text for fact in sample.facts if fact.text.startswith("people=")]
        assert said == [f"people={people.num_people}"]
        named = dict(zip(COCO17, people.keypoints[0], strict=True))
        assert named["left_shoulder"][0] > named["right_shoulder"][0]


def test_a_clip_from_elsewhere_has_no_toy_joints(tmp_path):
    clip, sample = clip_of()
    with pytest.raises(DataError, match="not one of the toy world"):
        build_pose_source(settings(source="toy")).find(clip, sample)


@pytest.fixture(scope="module")
def vitpose_folder(tmp_path_factory):
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    folder = tmp_path_factory.mktemp("vitpose")
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True)
    VitPoseForPoseEstimation(config).save_pretrained(folder)
    return folder


def test_vitpose_gives_17_key_points_for_each_box(vitpose_folder, tmp_path):
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text(json.dumps({"id": "a", "boxes": [[0, 0, 0.5, 1], [0.5, 0.2, 1, 0.9]]}))
    source = build_pose_source(settings(source="vitpose", model=str(vitpose_folder), detector=str(boxes), batch_size=3))
    people = source.find(*clip_of(3))
    assert [found.keypoints.shape for found in people] == [(2, 17, 3)] * 3
    assert all(np.isfinite(found.keypoints).all() for found in people)
    assert people[0].keypoints[0, :, 0].max() < people[0].boxes[0, 2] + 48  # near its own box, in the frame's pixels


def test_vitpose_of_people_does_not_depend_on_the_batch(vitpose_folder):
    found = [
        build_pose_source(settings(source="vitpose", model=str(vitpose_folder), batch_size=size)).find(*clip_of(5))
        for size in (1, 4)
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, rtol=1e-4, atol=1e-3)


def test_a_peak_between_cells_is_found_and_placed_in_the_frame():
    y, x = np.mgrid[:64, :48] + 0.5
    heat = np.exp(-((x - 20.3) ** 2 + (y - 33.8) ** 2) / 8)[None, None]
    points, scores = peaks(heat)
    np.testing.assert_allclose(points[0, 0], (20.3, 33.8), atol=0.05)
    assert scores[0, 0] > 0.9
    box = np.array([10.0, 20.0, 70.0, 100.0])
    matrix = crop_matrix(box, (256, 192))
    np.testing.assert_allclose(to_frame(np.array([96.0, 128.0]), matrix), (40.0, 60.0))  # the middle of both


def rtm_model(path, num_points):
    """Peaks at x = 48 and y = 64 of a 96 x 128 input (two cells a pixel)."""
    lines = {"simcc_x": np.zeros((1, num_points, 192)), "simcc_y": np.zeros((1, num_points, 256))}
    lines["simcc_x"][..., 96], lines["simcc_y"][..., 128] = 0.9, 0.8
    write_constant_model(path, (1, 3, 128, 96), lines)
    return str(path)


@pytest.mark.parametrize(("num_points", "layout"), [(17, "coco17"), (133, "coco133")])
def test_rtmlib_takes_a_local_file_with_body_or_whole_body_points(tmp_path, num_points, layout):
    source = build_pose_source(settings(source="rtmlib", model=rtm_model(tmp_path / "m.onnx", num_points)))
    people = source.find(*clip_of(2))
    assert source.layout == layout
    assert people[0].keypoints.shape == (1, num_points, 3)
    np.testing.assert_allclose(people[0].keypoints[0, :, :2], [[48, 64]] * num_points, atol=1e-3)  # the frame's middle
    assert 0.8 <= people[0].scores[0] <= 0.9


def test_a_detector_that_finds_nobody_gives_no_key_points(tmp_path):
    write_constant_model(tmp_path / "d.onnx", (1, 3, 64, 64), {"dets": np.array([[[0, 0, 10, 10, 0.1]]])})
    pose = {"source": "rtmlib", "model": rtm_model(tmp_path / "m.onnx", 17), "detector": str(tmp_path / "d.onnx")}
    assert [people.num_people for people in build_pose_source(settings(**pose)).find(*clip_of(2))] == [0, 0]


def test_a_yolox_detector_gives_boxes_in_the_frames_pixels(tmp_path):
    write_constant_model(tmp_path / "d.onnx", (1, 3, 64, 64), {"dets": np.array([[[8, 16, 24, 48, 0.9]]])})
    detector = build_detector(PoseSection(detector=str(tmp_path / "d.onnx")))
    clip, sample = clip_of(1, 128, 96)  # fits into 64 x 64 at half its size
    np.testing.assert_allclose(detector.boxes(clip.frames[0], sample), [[16, 32, 48, 96]])


class NlfStandIn(torch.nn.Module):
    """The signature of NLF's file: one person in even frames, nobody in odd ones; nobody at all for black frames."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    @torch.jit.export
    def detect_smpl_batched(
        self, images: torch.Tensor, default_fov_degrees: float = 55.0, model_name: str = "smpl"
    ) -> dict[str, list[torch.Tensor]]:
        if int(images.max()) == 0:
            return {"joints2d": [torch.zeros(0, 24, 2)]}
        names = ["boxes", "joints2d", "joints3d", "pose", "betas"]
        sizes = [[5], [24, 2], [24, 3], [72], [10]]
        out: dict[str, list[torch.Tensor]] = {}
        for k in range(5):
            made: list[torch.Tensor] = []
            for i in range(images.shape[0]):
                made.append(torch.ones([1 - i % 2] + sizes[k]))
            out[names[k]] = made
        for i in range(images.shape[0]):
            out["boxes"][i] = out["boxes"][i] * torch.tensor([10.0, 20.0, 30.0, 60.0, 0.9])
            out["joints2d"][i][:, 0] *= -5.0
            out["joints3d"][i] = out["joints3d"][i] * 3000.0
        return out


@pytest.fixture(scope="module")
def nlf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("nlf") / "nlf.torchscript"
    torch.jit.script(NlfStandIn()).save(str(path))
    return path


def test_nlf_gives_boxes_joints_and_smpl_parameters_in_metres(nlf_file):
    people = build_pose_source(settings(source="nlf", model=str(nlf_file), batch_size=2)).find(*clip_of(3))
    assert [found.num_people for found in people] == [1, 0, 1]
    np.testing.assert_array_equal(people[0].boxes, [[10, 20, 40, 80]])
    assert people[0].body.pose.shape == (1, 24, 3)
    np.testing.assert_allclose(people[0].body.root, [[3, 3, 3]])
    confidence = people[0].keypoints[0, :, 2]
    assert confidence[0] == 0  # outside of the frame
    np.testing.assert_allclose(confidence[1:], 0.9)


def test_nlf_that_sees_nobody_answers_without_boxes(nlf_file):
    clip, sample = clip_of(2)
    clip.frames[:] = 0
    people = build_pose_source(settings(source="nlf", model=str(nlf_file))).find(clip, sample)
    assert [found.num_people for found in people] == [0, 0]


@pytest.mark.parametrize(
    ("source", "origin", "licence"),
    [
        ("vitpose", "usyd-community/vitpose-base-simple", "Apache-2.0"),
        ("rtmlib", "Tau-J/rtmlib", "Apache-2.0"),
        ("nlf", "isarandi/nlf", "non-commercial"),
    ],
)
def test_missing_model_files_say_which_whence_and_under_what_licence(source, origin, licence, tmp_path):
    with pytest.raises(ConfigError) as unnamed:
        build_pose_source(settings(source=source))
    with pytest.raises(ModelError) as absent:
        build_pose_source(settings(source=source, model=str(tmp_path / "absent.file")))
    assert "motion.pose.model" in str(unnamed.value)
    assert "absent.file" in str(absent.value)
    for error in (unnamed, absent):
        assert origin in str(error.value)
        assert licence in str(error.value)


@pytest.mark.parametrize("source", ["vitpose", "rtmlib", "nlf"])
def test_a_file_that_is_no_model_is_refused(source, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        build_pose_source(settings(source=source, model=str(tmp_path / "m.onnx")))
    assert {"vitpose": "a ViTPose", "rtmlib": "an RTMPose", "nlf": "an NLF"}[source] in str(error.value)


def test_vitpose_without_some_of_its_weights_is_refused(vitpose_folder, tmp_path):
    folder = shutil.copytree(vitpose_folder, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if not name.startswith("head")}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks \d+ weights, first head\."):
        build_pose_source(settings(source="vitpose", model=str(folder)))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_type": "qwen2_5_vl"}, "of type 'qwen2_5_vl'"),
        ({"id2label": {str(i): str(i) for i in range(133)}}, "133 key points"),
    ],
)
def test_a_folder_of_another_model_is_refused_by_its_config(vitpose_folder, tmp_path, changes, found):
    folder = shutil.copytree(vitpose_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ModelError, match=found):
        build_pose_source(settings(source="vitpose", model=str(folder)))


class PlugIn:
    """Says of every frame what it is told to."""

    layout = "coco17"

    def __init__(self, people):
        self.people = people

    def find(self, clip, sample):
        return [self.people] * 2


class Failing(PlugIn):
    def find(self, clip, sample):
        return list(3)  # type: ignore[call-overload]


def people_of(points=17, boxes=1, value=1.0) -> FramePeople:
    return FramePeople(
        np.full((1, points, 3), value, np.float32), np.ones((boxes, 4), np.float32), np.ones(1, np.float32)
    )


def test_poses_of_a_plug_in_are_handed_on():
    people = people_of()
    assert find_people(PlugIn(people), "mine", *clip_of(2)) == [people, people]


@pytest.mark.parametrize(
    ("people", "num_frames"),
    [(people_of(), 3), (people_of(points=15), 2), (people_of(boxes=2), 2), (people_of(value=np.nan), 2)],
    ids=["a frame too few", "too few points", "a box without a person", "not finite"],
)
def test_poses_of_a_plug_in_that_cannot_be_used_fail_their_clip(people, num_frames):
    with pytest.raises(DataError, match="cannot be used") as error:
        find_people(PlugIn(people), "mine", *clip_of(num_frames))
    assert "a.mp4; mine" in str(error.value)
    assert f"{num_frames} frames: key points [people, 17, 3]" in str(error.value)


def test_a_plug_in_that_fails_on_a_clip_fails_that_clip_alone():
    with pytest.raises(DataError, match="TypeError: 'int' object is not iterable") as error:
        find_people(Failing(None), "mine", *clip_of())
    assert f"a.mp4; mine, line {Failing.find.__code__.co_firstlineno + 1} of {__file__}" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", '{"model_type": "vitpose", "backbone_config": 3}'])
def test_a_folder_without_a_usable_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError):
        build_pose_source(settings(source="vitpose", model=str(tmp_path)))


def test_an_unknown_source_names_those_there_are():
    with pytest.raises(ConfigError, match="unknown pose source") as caught:
        build_pose_source(settings(source="vitpos"))
    assert all(name in str(caught.value) for name in ("toy", "vitpose", "rtmlib", "nlf", "path/to/file.py:name"))
    assert 'did you mean "vitpose"?' in str(caught.value)


def test_a_plug_in_is_a_callable_that_takes_the_settings():
    @register("pose_source", "test-plug-in")
    class Mine:
        layout = "coco17"

        def __init__(self, motion):
            self.motion = motion

    assert isinstance(build_pose_source(settings(source="test-plug-in")), Mine)


def test_without_a_detector_the_whole_frame_is_the_box():
    clip, sample = clip_of(1)
    detector = build_detector(PoseSection())
    assert isinstance(detector, WholeFrame)
    assert detector.boxes(clip.frames[0], sample).tolist() == [[0, 0, 96, 128]]


def test_given_boxes_must_name_the_clip_and_be_shares(tmp_path):
    clip, sample = clip_of(1)
    path = tmp_path / "b.jsonl"
    path.write_text('{"id": "other", "boxes": []}\n')
    with pytest.raises(DataError, match="does not name the clip 'a'"):
        GivenBoxes(path).boxes(clip.frames[0], sample)
    path.write_text('{"id": "a", "boxes": [[10, 20, 30, 40]]}\n')
    with pytest.raises(DataError, match="boxes cannot be read"):
        GivenBoxes(path)
