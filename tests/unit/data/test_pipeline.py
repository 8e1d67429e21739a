"""What the data pipelines share: clips, records that survive a kill, files, what models are shown, scene cuts."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from owlcap.config import CacheSection, VideoSection
from owlcap.config_data import AskedModelSection, DataPipelineRun, ScenesSection, ShownSection
from owlcap.config_io import load_data_run
from owlcap.data.hmi.scenes import find_scenes
from owlcap.data.pipeline.clips import Clip, read_clips
from owlcap.data.pipeline.journal import Entry, Journal, JournalWriter, key_of
from owlcap.data.pipeline.output import JSON, NUMBER, TEXT, histogram, read_records, write_records
from owlcap.data.pipeline.run import StepActor
from owlcap.data.pipeline.shown import pictures
from owlcap.data.pipeline.step import Tools, read_prose, template_of
from owlcap.errors import ConfigError, DataError, VideoError
from rewards.chat import InvalidReply
from tests.conftest import moving_square, write_clip
from tests.judge_server import JudgeServer
from tests.judge_server import answer as served


def test_clips_come_from_rows_or_from_a_folder_of_videos(tmp_path: Path) -> None:
    (tmp_path / "videos" / "x").mkdir(parents=True)
    (tmp_path / "videos" / "x" / "b.mp4").touch()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"video": "videos/x/b.mp4", "caption": "Hm.", "end_s": 4}\n{"id": 7, "videos": ["/v/c.mp4"]}\n')

    assert read_clips(tmp_path / "videos") == [Clip("x/b", str(tmp_path / "videos" / "x" / "b.mp4"))]
    assert read_clips(rows) == [
        Clip("b", str(tmp_path / "videos/x/b.mp4"), None, 4.0, "Hm."),
        Clip("7", "/v/c.mp4"),
    ]


@pytest.mark.parametrize("text", ['{"video": "a.mp4"}\n{"video": "x/a.mp4"}', '{"id": 1}', "{broken", ""])
def test_clips_that_cannot_be_told_apart_or_read_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(DataError):
        read_clips(tmp_path / "rows.jsonl")


def test_records_survive_a_line_cut_off_by_a_kill(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.write(Entry("a", {"n": 1}), "k")
    writer.write(Entry("b", None, "no answer"), "k")
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"id": "c", "key": "k", "rec')

    journal = Journal(tmp_path, dict.fromkeys("abc", "k"))

    assert list(journal.records(["c", "b", "a"])) == [{"n": 1}]
    assert journal.failures == {"b": "no answer"}


def test_a_clip_that_failed_and_was_done_later_has_its_record(tmp_path: Path) -> None:
    JournalWriter(tmp_path).write(Entry("a", None, "no answer"), "k")
    JournalWriter(tmp_path).write(Entry("a", {"n": 1}), "k")

    journal = Journal(tmp_path, {"a": "k"})

    assert ("a" in journal, journal.failures) == (True, {})


def test_records_of_other_prompts_models_or_clips_are_not_taken_up(tmp_path: Path) -> None:
    JournalWriter(tmp_path).write(Entry("a", {"n": 1}), key_of(model="m1"))

    assert "a" not in Journal(tmp_path, {"a": key_of(model="m2")})
    assert "a" not in Journal(tmp_path, {"b": key_of(model="m1")})


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_records_come_back_from_their_file(tmp_path: Path, ending: str) -> None:
    records = [{"id": "a", "start_s": None, "prompts": {"p": "h"}}, {"id": "b", "start_s": 1.5, "prompts": {}}]
    path = tmp_path / f"x.{ending}"

    write_records(path, records, {"id": TEXT, "start_s": NUMBER, "prompts": JSON})

    assert list(read_records(path)) == records


def test_a_histogram_counts_its_upper_edge() -> None:
    assert histogram([0, 0.5, 0.89, 0.9, 1.0], (0, 0.9, 1)) == {"0 to 0.9": 3, "0.9 to 1": 2}


def test_a_model_is_shown_pictures_before_the_prompt_and_answers_are_kept_by_what_it_saw() -> None:
    server = JudgeServer()
    server.replies = [served("A girl waves."), served("A boy jumps.")]
    model = AskedModelSection(model="m", base_urls=(server.url,))
    run = DataPipelineRun(general_model=model, cache=CacheSection(enabled=False))
    frames = np.zeros((2, 28, 56, 3), np.uint8)

    async def ask() -> list[str]:
        tools = Tools(run, {"general_model": model})
        prompt = template_of(run, "hmi_summary", "shown")
        try:
            return [
                await tools.write("general_model", prompt, pictures(shown, 90), shown="frames")
                for shown in (frames, frames, frames + 9)
            ]
        finally:
            await tools.close()

    try:
        assert asyncio.run(ask()) == ["A girl waves.", "A girl waves.", "A boy jumps."]
        content = server.requests[0]["messages"][0]["content"]
    finally:
        server.close()
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    picture = Image.open(io.BytesIO(base64.b64decode(content[0]["image_url"]["url"].partition(",")[2])))
    assert picture.size == (56, 28)


def test_thinking_is_no_part_of_a_caption() -> None:
    assert read_prose("<think>\nA cat?\n</think>\n A dog.\n") == "A dog."


@pytest.mark.parametrize("text", ["", "<think>for ever", "<think>x</think> "])
def test_a_reply_without_text_is_asked_for_again(text: str) -> None:
    with pytest.raises(InvalidReply):
        read_prose(text)


def test_scenes_are_cut_where_the_picture_changes(tmp_path: Path) -> None:
    frames = np.concatenate([moving_square(seed, num_frames=18) for seed in (1, 2)])

    scenes = find_scenes(str(write_clip(tmp_path / "a.mp4", frames)), ScenesSection())

    assert np.allclose(scenes, [(0.0, 3.0), (3.0, 6.0)])


def test_a_video_without_a_cut_is_one_scene(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving_square(1, num_frames=12))

    assert find_scenes(str(path), ScenesSection()) == [(0.0, 2.0)]


def test_a_broken_video_has_no_scenes_but_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        find_scenes(str(tmp_path / "a.mp4"), ScenesSection())


class BrokenStep:
    """Fails as the item says."""

    def __init__(self, tools: Tools) -> None:
        if tools.run.prompts == "bad":
            raise ConfigError("no such pose source")

    async def do(self, item: dict) -> dict:
        if item["id"] == "unreadable":
            raise VideoError("the video file is empty")
        return {"id": item["id"], "n": 1}


def told_of(folder: Path, name: str, run: DataPipelineRun) -> dict:
    actor = StepActor(BrokenStep, run, {}, None, str(folder))
    return asyncio.run(actor({"item": json.dumps({"id": name}), "key": "k"}))


def test_an_actor_keeps_records_and_failures(tmp_path: Path) -> None:
    run = DataPipelineRun(cache=CacheSection(enabled=False))

    assert told_of(tmp_path, "fine", run)["failure"] == ""
    assert told_of(tmp_path, "unreadable", run)["failure"] == "the video file is empty"

    journal = Journal(tmp_path, {"fine": "k", "unreadable": "k"})
    assert list(journal.records(["fine"])) == [{"id": "fine", "n": 1}]
    assert journal.failures == {"unreadable": "the video file is empty"}


def test_a_step_that_cannot_be_made_is_told_with_its_own_error(tmp_path: Path) -> None:
    told = told_of(tmp_path, "fine", DataPipelineRun(prompts="bad", cache=CacheSection(enabled=False)))

    assert str(pickle.loads(told["fatal"])) == "no such pose source"


def test_settings_come_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("hmd:\n  min_accuracy: 0.8\n")

    run = load_data_run(file, ["shown.form=video", "examiner.model=mine"])

    assert (run.hmd.min_accuracy, run.shown.form, run.examiner.model) == (0.8, "video", "mine")
    assert load_data_run(None).hmd.min_accuracy == 0.9


def test_an_unknown_setting_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="min_acuracy"):
        load_data_run(None, ["hmd.min_acuracy=1"])


def test_the_settings_that_a_file_holds_are_plain_json() -> None:
    assert json.loads(DataPipelineRun(shown=ShownSection(video=VideoSection(fps=3))).model_dump_json())
