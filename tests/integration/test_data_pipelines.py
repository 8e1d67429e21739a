"""HMD and HMI from end to end on toy clips: Ray Data, real videos, a server that knows what they show. One start-up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from owlcap.config import CacheSection, VideoSection
from owlcap.config_data import AskedModelSection, DataPipelineRun, HmiSection, PersonSection, ShownSection
from owlcap.data.hmd.examination import examine
from owlcap.data.hmd.fusion import fuse
from owlcap.data.hmd.report import ExaminationReport
from owlcap.data.hmi.pipeline import make_hmi
from owlcap.data.hmi.report import HmiReport
from owlcap.data.pipeline.clips import read_clips
from owlcap.data.rows import read_rows
from owlcap.data.toy import ToyVideo, make_toy_world
from owlcap.errors import DataError
from tools.model_server import MODEL, ToyModels

pytestmark = pytest.mark.slow
NUM_CLIPS = 6


@dataclass(frozen=True)
class Made:
    """Both data sets, and what the models were asked for them."""

    root: Path
    rows: list[dict[str, Any]]
    examined: ExaminationReport
    hmi: HmiReport
    asked_first: int  # requests before the server broke
    asked: dict[str, int]  # for the fused captions, before and after that


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    import ray

    from owlcap.training.cluster import start_ray

    root = tmp_path_factory.mktemp("data")
    video = ToyVideo(num_frames=24)
    world = make_toy_world(root / "world", num_train=NUM_CLIPS, num_validation=0, num_test=0, seed=3, video=video)
    clips = read_clips(world.train)
    with ToyModels(world.train, fail_after=5) as server:
        run = settings(server.url, root / "cache.sqlite")
        with start_ray(run.cluster, num_cpus=2):
            with pytest.raises(DataError, match="clips failed"):
                fuse(clips, root / "fused", run)
            server.fail_after = None
            asked_first = sum(server.kinds.values())
            fuse(clips, root / "fused", run)
            kinds = dict(server.kinds)
            report = examine(root / "fused", root / "hmd", run.model_copy(update={"output": "parquet"}))
            hmi = make_hmi(clips, root / "hmi", run)
            assert report is not None
            assert hmi is not None
        assert not ray.is_initialized()
    rows = [json.loads(line) for line in world.train.read_text().splitlines()]
    return Made(root, rows, report, hmi, asked_first, kinds)


def settings(url: str, cache: Path) -> DataPipelineRun:
    model = AskedModelSection(model=MODEL, base_urls=(url,), max_tries=1, concurrency=2)
    shown = ShownSection(
        video=VideoSection(fps=6, min_frames=4, max_frames=24, min_pixels=784, max_pixels=3136), quality=95
    )
    run = DataPipelineRun(
        motion_model=model,
        general_model=model,
        examiner=model,
        writer=model,
        shown=shown,
        hmi=HmiSection(person=PersonSection(min_displacement=0.02), scan_fps=2, pose_fps=6, caption_words=()),
        cache=CacheSection(path=str(cache)),
        clips_at_once=2,
        cpus_per_actor=0.5,
    )
    pose = run.motion.pose.model_copy(update={"source": "toy"})
    return run.model_copy(update={"motion": run.motion.model_copy(update={"pose": pose})})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_server_that_fails_half_way_costs_nothing_twice(made: Made) -> None:
    assert 0 < made.asked_first <= 5
    assert made.asked == {"caption": NUM_CLIPS, "fusion": NUM_CLIPS}


def test_fused_captions_have_every_intermediate(made: Made) -> None:
    fused = lines(made.root / "fused" / "fused.jsonl")

    assert [record["id"] for record in fused] == [row["id"] for row in made.rows]
    assert [record["motion_caption"] for record in fused] == [row["captions"]["brief"] for row in made.rows]
    assert fused[0]["fused_caption"] == made.rows[0]["captions"]["full"]
    assert fused[0]["motion_model"] == fused[0]["general_model"] == MODEL
    assert set(fused[0]["prompts"]) == {"motion_caption", "detail_fusion"}


def test_captions_that_the_video_does_not_support_are_dropped(made: Made) -> None:
    import pyarrow.parquet as pq

    records = pq.read_table(made.root / "hmd" / "examined.parquet").to_pylist()

    assert [record["kept"] for record in records] == [True, True, False, True, True, False]
    assert all(record["accuracy"] == 1.0 for record in records if record["kept"])
    assert all(record["accuracy"] < 0.9 for record in records if not record["kept"])
    assert {unit["label"] for unit in records[0]["units"]} == {"supported"}
    assert set(json.loads(records[0]["prompts"])) == {"motion_caption", "detail_fusion", "units", "verify_units"}


def test_the_kept_captions_are_rows_to_train_on(made: Made) -> None:
    samples = read_rows(made.root / "hmd" / "train.jsonl", check_files=True)

    assert [sample.id for sample in samples] == [made.rows[number]["id"] for number in (0, 1, 3, 4)]
    assert samples[0].caption == made.rows[0]["captions"]["full"]


def test_the_examination_is_reported(made: Made) -> None:
    report = made.examined
    card = (made.root / "hmd" / "README.md").read_text()

    assert (report.num_clips, report.num_kept, report.dropped) == (NUM_CLIPS, 4, {"accuracy": 2})
    assert sum(report.accuracy.values()) == NUM_CLIPS
    assert 0 < report.motion_share < 1
    assert report.spent.num_requests > 0
    assert f"| verdicts | {MODEL} |" in card


def test_clips_with_more_than_one_person_are_dropped(made: Made) -> None:
    people = {row["id"]: next(f["text"] for f in row["facts"] if f["text"].startswith("people=")) for row in made.rows}

    for record in lines(made.root / "hmi" / "segments.jsonl"):
        kept = [segment for segment in record["segments"] if segment["kept"]]
        assert bool(kept) == (people[record["id"]] == "people=1")


def test_a_kept_clip_has_captions_key_frames_and_questions(made: Made) -> None:
    clips = lines(made.root / "hmi" / "clips.jsonl")
    segment = next(clip for clip in clips if clip["level"] == "fine")

    assert made.hmi.levels == {"fine": made.hmi.num_kept, "whole": made.hmi.num_kept}
    assert 2 <= segment["duration_s"] <= 5
    assert segment["key_times_s"] == sorted(segment["key_times_s"])
    assert segment["person"]["single_share"] == 1.0
    assert len(segment["questions"]) == 9
    assert segment["caption"] in [row["captions"]["full"] for row in made.rows]
    assert set(segment["prompts"]) == {"hmi_summary", "hmi_caption", "hmi_questions"}


def test_the_training_mix_has_every_caption_and_some_questions(made: Made) -> None:
    mix = read_rows(made.root / "hmi" / "train.jsonl", check_files=True)
    questions = read_rows(made.root / "hmi" / "questions.jsonl", check_files=True)

    captions = [sample for sample in mix if "-q" not in sample.id]
    assert len(captions) == made.hmi.num_captions
    assert len(questions) == made.hmi.num_questions == 9 * made.hmi.num_captions
    assert 0 < len(mix) - len(captions) < len(questions)
    assert "balanced accuracy" in (made.root / "hmi" / "README.md").read_text()
