"""`owlcap caption --msd` with transformers: captions, evidence, and what is told of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from owlcap.cli.app import app
from owlcap.config import MotionSection, VideoSection
from owlcap.config_motion import DecodingSection, ExtractSection, PoseSection
from owlcap.errors import ConfigError, DataError, ModelError
from owlcap.evaluation.run import run_eval_captions
from owlcap.inference.caption_pairs import PairOptions, caption_pairs
from owlcap.inference.explain import evidence_lines, evidence_table
from owlcap.inference.settings import PolicySettings, write_settings
from owlcap.inference.synergy import SynergyCaption
from owlcap.models.tiny import make_tiny_model
from owlcap.types import Completion, RolloutFailure, RolloutGroup, VideoClip
from tests.conftest import TEXTS, moving_square

SHORT = PairOptions(max_new_tokens=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", TEXTS, seed=3, motion=True)
    cache = ExtractSection(cache=str(tmp_path_factory.mktemp("cache")))
    motion = MotionSection(enabled=True, pose=PoseSection(model="/nowhere/vitpose"), extract=cache)
    video = VideoSection(fps=6, min_frames=2, max_frames=12, min_pixels=28 * 28, max_pixels=56 * 56)
    write_settings(folder, PolicySettings(video, "Describe the video.", 6, None, motion))
    return folder


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overlays")
    for number in range(3):
        Image.fromarray(moving_square(30 + number, 1, 28, 56)[0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def data(tmp_path: Path, toy_clips: tuple[Path, ...], overlays: Path) -> Path:
    """Three rows with overlays of their own; the second one's video is not there."""
    files = [toy_clips[0], tmp_path / "gone.mp4", toy_clips[2]]
    rows = [
        {
            "id": f"row-{number}",
            "videos": [str(file)],
            "overlays": [str(overlays / f"{number}.png")],
            "messages": [
                {"role": "user", "content": "<video>Describe the video."},
                {"role": "assistant", "content": "A square moves."},
            ],
        }
        for number, file in enumerate(files)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(results) -> SynergyCaption:
    (result,) = results
    assert isinstance(result, SynergyCaption), result
    return result


def test_every_token_has_its_evidence(model: Path, overlays: Path, toy_clips: tuple[Path, ...]) -> None:
    options = PairOptions(max_new_tokens=6, explain=True)
    caption = one(caption_pairs(model, toy_clips[0], overlays=overlays, options=options))
    assert [token.token_id for token in caption.evidence] == list(caption.completion.token_ids)
    for token in caption.evidence:
        assert sum(token.terms) == pytest.approx(token.score, abs=1e-6)
        assert len(token.visual_top) == len(token.motion_top) == 5
        best = [candidate.probability for candidate in token.visual_top]
        assert best == sorted(best, reverse=True)
        assert token.visual_top[0].kept  # relative pruning never drops it
        assert not any(candidate.kept for candidate in token.pruned)
    rows = [json.loads(line) for line in evidence_lines(caption.evidence).splitlines()]
    assert all(
        {"L1", "L2", "L3", "L4", "L5", "score", "visual_top", "motion_top", "pruned"} <= row.keys() for row in rows
    )
    assert len(evidence_table(caption.evidence).splitlines()) == 1 + len(rows)


def test_a_pruned_candidate_is_marked(model: Path, overlays: Path, toy_clips: tuple[Path, ...]) -> None:
    decoding = DecodingSection(beta=0.6)
    options = PairOptions(decoding=decoding, max_new_tokens=6, explain=True)
    evidence = one(caption_pairs(model, toy_clips[0], overlays=overlays, options=options)).evidence
    assert any(token.pruned for token in evidence)
    assert " -" in evidence_table(evidence)


def test_the_rows_of_a_file_are_captioned_as_each_would_be_alone_and_a_bad_one_is_named(
    model: Path, data: Path, overlays: Path, toy_clips: tuple[Path, ...], tmp_path: Path
) -> None:
    results = list(caption_pairs(model, data, options=SHORT))
    assert [type(result) for result in results] == [SynergyCaption, RolloutFailure, SynergyCaption]
    assert results[1].error == "VideoError"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "2.png").symlink_to(overlays / "2.png")
    alone = one(caption_pairs(model, toy_clips[2], overlays=tmp_path / "own", options=SHORT))
    assert results[2].completion.token_ids == alone.completion.token_ids


def test_sampled_captions_repeat_with_their_seed(model: Path, overlays: Path, toy_clips: tuple[Path, ...]) -> None:
    def drawn(seed: int) -> tuple[int, ...]:
        options = PairOptions(temperature=1.0, seed=seed, max_new_tokens=6)
        return one(caption_pairs(model, toy_clips[0], overlays=overlays, options=options)).completion.token_ids

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_evaluation_decodes_with_both_branches(model: Path, data: Path) -> None:
    report = run_eval_captions(model, data, msd="transformers")
    assert [row.id for row in report.rows] == ["row-0", "row-2"]
    assert report.failed[0].id == "row-1"
    captions = [r.completion.text for r in caption_pairs(model, data, options=SHORT) if isinstance(r, SynergyCaption)]
    assert [row.captions[0] for row in report.rows] == captions


# Bad input.


def test_a_checkpoint_without_a_motion_merger_names_the_command(tiny_policy: Path, toy_clips: tuple[Path, ...]) -> None:
    with pytest.raises(ModelError, match="no motion merger") as error:
        list(caption_pairs(tiny_policy, toy_clips[0]))
    assert f"owlcap model add-motion {tiny_policy}" in str(error.value)


def test_a_video_without_overlays_needs_the_pose_model(model: Path, toy_clips: tuple[Path, ...]) -> None:
    with pytest.raises((ModelError, ConfigError), match="vitpose"):
        list(caption_pairs(model, toy_clips[0]))


def test_a_folder_without_pictures_is_told(model: Path, toy_clips: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no overlays"):
        list(caption_pairs(model, toy_clips[0], overlays=tmp_path))
    with pytest.raises(DataError, match="No such file"):
        list(caption_pairs(model, toy_clips[0], overlays=tmp_path / "nowhere"))


def test_an_overlay_that_is_no_picture_is_a_failure(model: Path, toy_clips: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    (result,) = caption_pairs(model, toy_clips[0], overlays=tmp_path)
    assert isinstance(result, RolloutFailure)
    assert "the overlay cannot be read" in result.reason
    assert "leave this one out" in result.reason


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"engine": "vllm", "explain": True}, "keeps no evidence"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        PairOptions(**options)


def test_options_of_pairs_without_msd_are_refused(model: Path, toy_clips: tuple[Path, ...]) -> None:
    answer = CliRunner().invoke(app, ["caption", str(model), str(toy_clips[0]), "--explain"])
    assert isinstance(answer.exception, ConfigError)
    assert "--explain belongs to Motion Synergetic Decoding" in str(answer.exception)


def test_the_command_prints_captions_and_evidence_and_writes_the_evidence(
    model: Path, data: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "evidence.jsonl"
    answer = CliRunner().invoke(
        app, ["caption", str(model), str(data), "--msd", "--explain", "--evidence", str(lines), "--max-new-tokens", "4"]
    )
    assert answer.exit_code == 1  # one of three rows has no video
    assert "row-0: " in answer.stdout
    assert "visual branch" in answer.stdout
    clips = {json.loads(line)["clip"] for line in lines.read_text().splitlines()}
    assert clips == {"row-0", "row-2"}


# Settings of the motion pathway on the command line. No engine starts: what it would be given is looked at.


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[VideoClip]:
    """The clips that `owlcap caption` without --msd would give to its engine."""
    seen: list[VideoClip] = []

    def draw(settings, requests, clips):
        seen.extend(clips.values())
        return [RolloutGroup(requests[0].sample, (Completion((1,), (-0.5,), "A square moves.", "stop", 0),))]

    monkeypatch.setattr("owlcap.inference.caption.draw_in_process", draw)
    return seen


def caption(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["caption", *map(str, arguments)])


def test_overlays_of_a_folder_are_shown_without_msd_too(
    model: Path, overlays: Path, toy_clips: tuple[Path, ...], drawn: list[VideoClip]
) -> None:
    answer = caption(model, toy_clips[0], "--overlays", overlays)
    assert (answer.stdout, answer.stderr) == ("A square moves.\n", "")
    assert [len(clip.overlays) for clip in drawn] == [3]


@pytest.mark.parametrize(
    ("override", "why"), [("enabled=false", "motion.enabled=false"), ("missing=visual", "it gives no overlays")]
)
def test_a_motion_policy_that_sees_no_overlays_says_so(
    model: Path, toy_clips: tuple[Path, ...], drawn: list[VideoClip], override: str, why: str
) -> None:
    answer = caption(model, toy_clips[0], "pose.source=toy", override)
    assert answer.stdout == "A square moves.\n"
    assert answer.stderr.startswith("note: the policy takes overlays, and this caption is of the video alone")
    assert why in answer.stderr
    assert [clip.overlays for clip in drawn] == [()]


@pytest.mark.parametrize("msd", [(), ("--msd",)])
def test_the_pose_source_of_the_command_line_wins(
    model: Path, toy_clips: tuple[Path, ...], drawn: list[VideoClip], msd: tuple[str, ...]
) -> None:
    error = caption(model, toy_clips[0], *msd, "pose.source=toy").exception
    assert isinstance(error, DataError)
    assert "not one of the toy world" in str(error)  # and not that the policy's ViTPose is missing
    assert str(error).count("where:") == 1
    assert drawn == []


def test_a_checkpoint_that_takes_no_overlays_is_refused_some(
    tiny_policy: Path, overlays: Path, toy_clips: tuple[Path, ...], drawn: list[VideoClip]
) -> None:
    error = caption(tiny_policy, toy_clips[0], "--overlays", overlays).exception
    assert isinstance(error, ModelError)
    assert "takes no overlays" in str(error)
    assert drawn == []


def test_a_plain_checkpoint_is_asked_as_before(
    tiny_policy: Path, toy_clips: tuple[Path, ...], drawn: list[VideoClip]
) -> None:
    answer = caption(tiny_policy, toy_clips[0])
    assert (answer.stdout, answer.stderr) == ("A square moves.\n", "")
    assert [clip.overlays for clip in drawn] == [()]


def test_a_data_file_without_msd_is_refused(model: Path, data: Path) -> None:
    error = caption(model, data).exception
    assert isinstance(error, ConfigError)
    assert error.cure == "add --msd"
