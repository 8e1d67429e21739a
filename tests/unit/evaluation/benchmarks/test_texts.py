"""Texts from files and from models: whose they are, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from owlcap.errors import ConfigError, DataError, RolloutError
from owlcap.evaluation.benchmarks.generating import TEXTS_FILE, TextSource, find_video, make_texts
from owlcap.evaluation.benchmarks.texts import read_texts
from owlcap.evaluation.benchmarks.values import Case
from tests.judge_server import JudgeServer, Reply, answer, failure
from tests.unit.evaluation.benchmarks.cases import write_lines

CASES = [Case(f"short/{v}", "short", v, "Describe.", "", v) for v in ("1", "2")]
CASES += [Case("camera/1", "camera", "1", "Describe the camera.", "", "1")]


def test_a_text_for_a_video_stands_for_all_its_cases_and_one_for_a_case_wins(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"id": 1, "caption": "all"}, {"id": "camera/1", "answer": "camera"})
    assert read_texts(path, CASES) == {"short/1": "all", "camera/1": "camera"}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"id": "1", "caption"', "broken JSON"),
        ({"id": "2"}, "an id and one text"),
        ({"id": None, "caption": "x"}, "an id and one text"),
        ({"id": "2", "caption": "x", "answer": "y"}, "an id and one text"),
        ({"id": "1", "caption": "again"}, "occurs twice"),
        ({"id": "9", "caption": "x"}, "1 ids are not among the annotations, the first is '9'"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: object, what: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"id": "1", "caption": "one"}, row)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=what) as error:
        read_texts(path, CASES)
    assert error.value.where == f"{path}:2"


def test_the_annotations_ids_are_told_by_their_first_and_last(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"id": "9", "caption": "x"})
    with pytest.raises(DataError) as error:
        read_texts(path, CASES[:2])
    assert error.value.allowed == "'short/1', ..., 'short/2' or '1', ..., '2'"


def test_videos_are_found_with_or_without_their_ending(tmp_path: Path) -> None:
    for name in ("7.mp4", "clip.MKV.webm"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "7") == tmp_path / "7.mp4"
    assert find_video(tmp_path, "clip.MKV.webm") == tmp_path / "clip.MKV.webm"
    assert find_video(tmp_path, "8") is None


@pytest.fixture
def server():
    server = JudgeServer()
    yield server
    server.close()


@pytest.fixture
def source(server: JudgeServer, tmp_path: Path) -> TextSource:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "1.mp4").write_bytes(b"not looked into")
    return TextSource(server.url, videos, served_model="policy", max_new_tokens=99)


def test_a_server_is_sent_the_video_and_the_prompt_and_a_missing_video_is_named(
    server: JudgeServer, source: TextSource, tmp_path: Path
) -> None:
    server.replies = [answer(" A man waves. ")]
    texts, problems = make_texts(source, CASES, tmp_path / "out")
    assert texts == {"short/1": "A man waves.", "camera/1": "A man waves."}
    assert [problem.id for problem in problems] == ["short/2"]
    request = next(one for one in server.requests if "camera" in json.dumps(one))
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("policy", 99, 0)
    parts = {part["type"]: part for part in request["messages"][0]["content"]}
    assert parts["text"]["text"] == "Describe the camera."
    assert parts["video_url"]["video_url"]["url"] == "data:video/mp4;base64,bm90IGxvb2tlZCBpbnRv"


def test_a_stopped_run_asks_only_for_what_is_left(server: JudgeServer, source: TextSource, tmp_path: Path) -> None:
    server.replies = [answer("one")]
    make_texts(source, CASES[:1], tmp_path / "out")
    with (tmp_path / "out" / TEXTS_FILE).open("a") as file:
        file.write('{"id": "camera/1", "capt')  # the process died while it wrote
    server.replies = [answer("two")]
    texts, _ = make_texts(source, CASES, tmp_path / "out")
    assert texts == {"short/1": "one", "camera/1": "two"}
    assert len(server.requests) == 2
    assert make_texts(source, CASES, tmp_path / "out")[0] == texts
    assert len(server.requests) == 2


def test_a_text_to_another_prompt_is_not_kept(server: JudgeServer, source: TextSource, tmp_path: Path) -> None:
    server.replies = [answer("one")]
    make_texts(source, CASES[:1], tmp_path / "out")
    server.replies = [answer("two")]
    texts, _ = make_texts(source, [replace(CASES[0], prompt="Describe the man.")], tmp_path / "out")
    assert texts == {"short/1": "two"}


def test_a_refused_request_costs_its_own_text_alone(server: JudgeServer, source: TextSource, tmp_path: Path) -> None:
    def respond(prompt: object) -> Reply:
        return failure(400, "too long") if "camera" in json.dumps(prompt) else answer("one")

    server.respond = respond  # type: ignore[assignment]
    texts, problems = make_texts(source, [CASES[0], CASES[2]], tmp_path / "out")
    assert texts == {"short/1": "one"}
    assert [(problem.id, "too long" in problem.reason) for problem in problems] == [("camera/1", True)]


def test_texts_of_another_model_are_not_mixed_in(server: JudgeServer, source: TextSource, tmp_path: Path) -> None:
    server.replies = [answer("one")]
    make_texts(source, CASES[:1], tmp_path / "out")
    with pytest.raises(ConfigError, match="made otherwise: served_model changed"):
        make_texts(replace(source, served_model="other"), CASES[:1], tmp_path / "out")


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"1")
    (tmp_path / "videos").mkdir()
    source = TextSource(str(model), tmp_path / "videos")
    make_texts(source, CASES, out)  # no video: nothing to ask the model
    os.utime(weights, (1, 1))
    with pytest.raises(ConfigError, match="files changed"):
        make_texts(source, CASES, out)


def test_a_server_that_is_not_there_is_told_before_anything_is_asked(tmp_path: Path, source: TextSource) -> None:
    gone = replace(source, model="http://127.0.0.1:9/v1", served_model=None)
    with pytest.raises(RolloutError, match="does not answer"):
        make_texts(gone, CASES, tmp_path / "out")
