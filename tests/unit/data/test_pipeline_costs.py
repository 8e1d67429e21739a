"""What the data pipelines say before they ask, what they tell of failures, and the figures they write."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from owlcap.config import CacheSection, VideoSection
from owlcap.config_data import AskedModelSection, DataPipelineRun, ShownSection
from owlcap.data.hmd.examination import examine
from owlcap.data.hmd.fusion import fuse
from owlcap.data.hmd.report import ExaminationReport, write_card
from owlcap.data.hmi.pipeline import make_hmi
from owlcap.data.pipeline.clips import Clip, read_clips
from owlcap.data.pipeline.estimate import Calls, estimate
from owlcap.data.pipeline.journal import Entry, Journal, JournalWriter, key_of
from owlcap.data.pipeline.output import write_report
from owlcap.data.pipeline.reasons import Reason, group_reasons, reason_of
from owlcap.data.pipeline.run import StepRun, pending
from owlcap.data.pipeline.step import Tools, template_of
from owlcap.errors import ConfigError, DataError, JudgeError, VideoError
from rewards.chat import Usage
from tests.conftest import moving_square, write_clip

MODEL = AskedModelSection(
    model="m", base_urls=("http://127.0.0.1:9/v1",), max_tokens=100, usd_per_million_input=2, usd_per_million_output=10
)
SHOWN = ShownSection(video=VideoSection(fps=6, min_frames=4, max_frames=4, min_pixels=3136, max_pixels=3136))
RUN = DataPipelineRun(
    motion_model=MODEL,
    general_model=MODEL,
    examiner=MODEL,
    writer=MODEL,
    shown=SHOWN,
    cache=CacheSection(enabled=False),
)
TOKENS = 4 * 2 * 2  # of a clip: 4 pictures of 56 x 56 pixels


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", moving_square(1))
    return read_clips(tmp_path / "videos")


def test_clips_by_another_spelling_of_their_path_are_the_same_records(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "videos")
    (tmp_path / "rows.jsonl").write_text('{"video": "videos/../videos/a.mp4"}\n')
    monkeypatch.chdir(tmp_path)

    for spelling in ("videos", "link", "videos/../videos", "rows.jsonl"):
        assert read_clips(Path(spelling)) == clips


def test_records_of_an_item_are_found_again_and_it_is_not_pending(tmp_path: Path) -> None:
    items = [{"id": "a", "video": "/v/a.mp4"}, {"id": "b", "video": "/v/b.mp4"}]
    JournalWriter(tmp_path / "records" / "fuse").write(Entry("a", {"n": 1}), key_of(key="k", item=items[0]))

    assert pending("fuse", items, tmp_path, "k") == [items[1]]
    assert pending("fuse", items, tmp_path, "other") == items


def test_a_dry_run_says_what_fusion_costs_and_asks_nobody(tmp_path: Path, clips: list[Clip]) -> None:
    told: list[str] = []

    assert fuse(clips, tmp_path / "out", RUN, say=told.append, dry_run=True) is None

    prompt = len(template_of(RUN, "motion_caption", "shown").text)
    assert f"to do     1 clips, {TOKENS} tokens of video each (mean of 1)" in told[0]
    assert f"motion_model (m): 1 calls, about {prompt // 4 + TOKENS} input and at most 100 output tokens" in told[0]
    assert "what is in the cache costs nothing" in told[0]
    assert not (tmp_path / "out").exists()


def test_a_cost_is_calls_and_tokens_times_prices(clips: list[Clip]) -> None:
    items = [{"id": clips[0].id, "video": clips[0].video}] * 500

    told = estimate([Calls("writer", 1000, 4_000_000), Calls("examiner", 500, 0, 500)], items, RUN)

    assert "writer (m): 1,000 calls, about 1,000,000 input and at most 100,000 output tokens, 3.0000 USD" in told
    assert "examiner (m): 500 calls, about 8,000 input and at most 50,000 output tokens, 0.5160 USD" in told
    assert "3.5160 USD in all" in told


def test_clips_that_cannot_be_read_are_told_with_the_cost(clips: list[Clip]) -> None:
    items = [{"id": "a", "video": clips[0].video}, {"id": "b", "video": "/gone.mp4"}]

    both = estimate([Calls("writer", 2, 0, 2)], items, RUN)
    none = estimate([Calls("writer", 1, 0, 1)], items[1:], RUN)

    assert "(mean of 1; 1 of 2 looked at cannot be read, e.g. /gone.mp4: " in both
    assert "tokens of video unknown: 1 of 1 looked at cannot be read" in none


def test_what_is_done_costs_nothing() -> None:
    assert estimate([], [], RUN) == "to ask    nothing: all clips are done"


def test_a_dry_run_of_hmi_tells_that_clips_are_not_known_before_videos_are_cut(
    tmp_path: Path, clips: list[Clip]
) -> None:
    told: list[str] = []

    assert make_hmi(clips, tmp_path / "out", RUN, say=told.append, dry_run=True) is None

    assert "videos    1, 1 of them not cut into clips yet" in told[0]
    assert "general_model (m): 2 calls" in told[0]
    assert "writer (m): 1 calls" in told[0]


def record(number: int, kept: bool) -> dict[str, Any]:
    units = [
        {"text": f"unit {n}", "tag": "motion", "label": "supported" if kept or n else "not mentioned"} for n in range(3)
    ]
    return {
        **{
            "id": f"c{number}",
            "video": f"/v/{number}.mp4",
            "motion_caption": "A girl waves.",
            "fused_caption": "A girl.",
        },
        **{"motion_model": "tarsier", "general_model": "qwen", "examiner": "m"},
        "prompts": {"motion_caption": "h1", "detail_fusion": "h2", "units": "h3", "verify_units": "h4"},
        "units": units,
        "accuracy": 1.0 if kept else 2 / 3,
        "kept": kept,
        "reason": "" if kept else "accuracy",
    }


def test_a_data_card_names_every_prompt_and_model_of_its_records(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "records")
    for number in range(3):
        writer.write(Entry(f"c{number}", record(number, kept=number > 0)), "k")
    ids = ("c0", "c1", "c2")
    done = StepRun(Journal(tmp_path / "records", dict.fromkeys(ids, "k")), ids, 0, Usage(usd=1 / 3), Usage(usd=1 / 3))

    report = ExaminationReport.of(done, RUN)
    report.write(tmp_path / "report.json")
    write_card(tmp_path / "README.md", report, RUN, Path("fused.jsonl"))

    card = (tmp_path / "README.md").read_text()
    for name, value in (("motion_caption", "h1"), ("detail_fusion", "h2"), ("units", "h3"), ("verify_units", "h4")):
        assert f"| {name} | {value} |" in card
    assert "| motion captions | tarsier |" in card
    figures = json.loads((tmp_path / "report.json").read_text())
    assert (figures["mean_accuracy"], figures["spent"]["usd"]) == (0.8889, 0.3333)
    assert not re.search(r"\d\.\d{5}", card.partition("## Figures")[2])


def test_figures_of_a_report_have_four_decimals_at_most(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", {"a": 2 / 3, "b": {"c": [1 / 3, 1]}, "d": "0.123456", "e": (True, None)})

    assert json.loads((tmp_path / "r.json").read_text()) == {
        "a": 0.6667,
        "b": {"c": [0.3333, 1]},
        "d": "0.123456",
        "e": [True, None],
    }


def test_a_reason_is_the_same_for_every_clip_that_fails_for_it() -> None:
    reasons = [
        (name, reason_of(VideoError(f"{path} ends after {end} s", where=path, cure="copy it again"), path))
        for name, path, end in (("a", "/v/a.mp4", 1.5), ("b", "/v/b.mp4", 12))
    ]

    assert group_reasons([*reasons, ("c", "no answer")]) == (
        Reason("the video ends after 1.5 s; cure: copy it again", 2, ("a", "b")),
        Reason("no answer", 1, ("c",)),
    )


def test_a_reason_names_a_few_of_its_clips() -> None:
    (reason,) = group_reasons([(f"clip-{number}", "no answer") for number in range(1200)])
    assert reason.text() == "1,200 x no answer (clip-0, clip-1, clip-2, ...)"


@pytest.mark.parametrize(
    ("step", "name"), [("fuse", "fused.jsonl"), ("examine", "examined.jsonl"), ("hmi", "clips.jsonl")]
)
def test_a_file_of_another_format_is_not_left_to_grow_stale(
    tmp_path: Path, clips: list[Clip], step: str, name: str
) -> None:
    (tmp_path / name).touch()
    run = RUN.model_copy(update={"output": "parquet"})
    start = {
        "fuse": lambda: fuse(clips, tmp_path, run, dry_run=True),
        "examine": lambda: examine(tmp_path / "fused.jsonl", tmp_path, run, dry_run=True),
        "hmi": lambda: make_hmi(clips, tmp_path, run, dry_run=True),
    }

    with pytest.raises(DataError, match=f"holds {name} of an earlier run") as caught:
        start[step]()
    assert "output=jsonl" in str(caught.value.cure)


@pytest.mark.parametrize("lacks", ["fused_caption", "motion_model", "prompts"])
def test_records_that_fuse_did_not_write_are_named(tmp_path: Path, lacks: str) -> None:
    path = tmp_path / "fused.jsonl"
    path.write_text(json.dumps({key: value for key, value in record(0, kept=True).items() if key != lacks}) + "\n")

    with pytest.raises(DataError, match=f"'c0' has no {lacks}"):
        examine(path, tmp_path / "out", RUN, dry_run=True)


def test_errors_of_a_model_name_its_own_settings() -> None:
    async def check() -> None:
        tools = Tools(RUN, {"motion_model": MODEL})
        try:
            await tools.model("motion_model").check()
        finally:
            await tools.close()

    with pytest.raises(JudgeError) as caught:
        asyncio.run(check())
    assert "motion_model.base_urls" in str(caught.value.cure)
    assert str(caught.value.where).startswith("motion_model m at ")
    assert "judge" not in str(caught.value)


def test_settings_of_a_pipeline_are_named_as_they_are_called_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as address:
        Tools(RUN, {"writer": MODEL.model_copy(update={"base_urls": ("nowhere",)})})
    with pytest.raises(ConfigError) as prompts:
        template_of(RUN.model_copy(update={"prompts": str(tmp_path / "absent")}), "motion_caption", "shown")

    assert (address.value.where, prompts.value.where) == ("writer.base_urls", str(tmp_path / "absent"))
    assert prompts.value.cure == "make it, or set `prompts`, which names it, to null"
