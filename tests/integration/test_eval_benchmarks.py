"""`owlcap eval dream1k | vdc | hmi-bench | compare` as commands, with a judge's server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from owlcap.cli import main
from owlcap.evaluation.benchmarks.saving import load_result
from tests.judge_server import JudgeServer as FaultyServer
from tests.judge_server import Reply, failure
from tests.judge_server import answer as completion
from tests.unit.evaluation.benchmarks.cases import SUBSETS, dream_row, write_lines
from tools.judge_server import JudgeServer

REFERENCE = "A man waves and a dog runs."
EVENTS = ("a man waves", "a dog runs")


@pytest.fixture
def judge() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        yield server


@pytest.fixture
def dream(tmp_path: Path) -> Path:
    """One clip of each subset."""
    rows = [dream_row(i, subset, REFERENCE, EVENTS) for i, subset in enumerate(SUBSETS, 1)]
    return write_lines(tmp_path / "dream.jsonl", *rows)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "good.jsonl", *({"id": i, "caption": f"{REFERENCE} {i}."} for i in range(1, 6)))


def evaluate(url: str, tmp_path: Path, *arguments: object) -> int:
    """The command's exit code."""
    settings = (f"judge.base_urls=[{url}]", "judge.model=lexical", f"cache.path={tmp_path / 'cache.sqlite'}")
    extra = [word for setting in (*settings, "judge.max_tries=2") for word in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main(["eval", *map(str, arguments), *extra])
    return int(end.value.code or 0)


def test_dream1k_prints_the_cost_before_and_the_spend_after_and_a_second_run_spends_nothing(
    judge: JudgeServer, dream: Path, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("dream1k", captions, dream, "--out", tmp_path / "good")
    assert evaluate(judge.url, tmp_path, *arguments) == 0
    shown = capsys.readouterr().out
    assert shown.index("5 texts: at most 15 judge calls") < shown.index("dream1k of good") < shown.index("judge: ")
    first, asked = load_result(tmp_path / "good"), judge.seen.num_requests
    assert first.is_complete
    assert first.usage.num_requests == asked > 0
    assert (tmp_path / "good" / "index.html").exists()
    assert evaluate(judge.url, tmp_path, *arguments) == 0
    again = load_result(tmp_path / "good")
    assert judge.seen.num_requests == asked
    assert (again.usage.num_requests, again.figures) == (0, first.figures)


def test_a_dry_run_asks_nobody(dream: Path, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("http://127.0.0.1:9/v1", tmp_path, "dream1k", captions, dream, "--dry-run") == 0
    assert capsys.readouterr().out.startswith("5 texts: at most 15 judge calls, about ")


@pytest.mark.parametrize("name", ["dream1k", "captions"])
def test_a_mistyped_file_is_told(name: str, dream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", name, "nothere.jsonl", str(dream)])
    told = capsys.readouterr().err
    assert "there is no such file or folder" in told
    assert "nothere.jsonl" in told


def test_missing_captions_are_named_counted_and_label_the_figures_incomplete(
    judge: JudgeServer, dream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = write_lines(tmp_path / "some.jsonl", {"id": 1, "caption": REFERENCE}, {"id": 4, "caption": ""})
    assert evaluate(judge.url, tmp_path, "dream1k", some, dream) == 1
    shown = capsys.readouterr().out
    assert "dream1k of some, judged by lexical (INCOMPLETE)" in shown
    assert "INCOMPLETE: 3 without a text: 2, 3, 5" in shown


class FaultyJudge(FaultyServer):
    """Finds everything entailed, but has trouble with some captions while it `fails`. It lists no models."""

    fails = True

    def _next(self, request: dict[str, Any]) -> Reply:
        prompt = request["messages"][0]["content"] if "messages" in request else None
        if prompt is None:
            return failure(404)
        if self.fails and ("runs. 3" in prompt or "runs. 5" in prompt):
            return failure(500)
        entailed = [{"event": event, "relationship": "entailment"} for event in EVENTS]
        return completion(json.dumps({"events": entailed if "EVENTS:" in prompt else list(EVENTS)}))


def test_a_judge_that_fails_half_way_is_gone_on_with_and_nothing_is_paid_twice(
    dream: Path, captions: Path, tmp_path: Path
) -> None:
    server = FaultyJudge()
    try:
        arguments = ("dream1k", captions, dream, "--out", tmp_path / "out")
        assert evaluate(server.url, tmp_path, *arguments) == 1
        first, asked = load_result(tmp_path / "out"), len(server.requests)
        assert [problem.id for problem in first.failed] == ["3", "5"]
        assert len(first.scores) == 3
        server.fails = False
        assert evaluate(server.url, tmp_path, *arguments) == 0
        second = load_result(tmp_path / "out")
        assert second.is_complete
        # Of each of the two: its events and the reference's events against it. That their events are checked against
        # the reference was asked before, for the others' equal events. And twice whether the server is there, which
        # lists no models.
        assert len(server.requests) - asked == 2 * 2 + 2
    finally:
        server.close()


def test_vdc_and_hmi_bench_run_as_commands(
    judge: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [{"question": "Who waves?", "answer": "a man", "category": ""}]
    folder = tmp_path / "vdc"
    folder.mkdir()
    for category in ("camera", "short", "background", "main_object", "detailed"):
        write_lines(folder / f"{category}.jsonl", {"v1": questions}, {"v2": questions})
    texts = write_lines(tmp_path / "vdc.jsonl", {"id": "v1", "caption": REFERENCE}, {"id": "v2", "caption": "Fog."})
    assert evaluate(judge.url, tmp_path, "vdc", texts, folder, "--official") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^all +1\.000", shown, re.MULTILINE)  # the script drops v2, which has accuracy 0
    assert re.search(r"^all +0\.500", shown, re.MULTILINE)
    qa = tmp_path / "HMI-Bench-QA.json"
    qa.write_text(json.dumps([{"video": "a.mp4", "QA": [{"question": "He waves.", "answer": "True"}]}]))
    answers = write_lines(tmp_path / "answers.jsonl", {"id": "a.mp4#1", "answer": "True."})
    assert evaluate(judge.url, tmp_path, "hmi-bench", answers, qa) == 0
    assert "true_false" in capsys.readouterr().out


def test_two_runs_are_compared_by_one_command(
    judge: JudgeServer, dream: Path, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = write_lines(tmp_path / "worse.jsonl", *({"id": i, "caption": "A man waves."} for i in range(1, 6)))
    for source in (worse, captions):
        evaluate(judge.url, tmp_path, "dream1k", source, dream, "--out", tmp_path / source.stem)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["eval", "compare", str(tmp_path / "worse"), str(tmp_path / "good"), "--out", str(tmp_path / "c.json")])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "+0.500" in lines["recall"]  # the dog runs in one of them
    assert json.loads((tmp_path / "c.json").read_text())["num_shared"] == 5


@pytest.mark.parametrize(
    ("benchmark", "what"), [("vdc", "no category of VDC"), ("hmi-bench", "no annotation of HMI-Bench")]
)
def test_annotations_of_another_benchmark_are_refused(
    dream: Path, captions: Path, tmp_path: Path, benchmark: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("http://127.0.0.1:9/v1", tmp_path, benchmark, captions, dream) == 2
    assert what in capsys.readouterr().err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a policy's."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "model.safetensors").touch()
    return folder


def test_a_model_needs_videos_and_a_folder(dream: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("http://127.0.0.1:9/v1", model, "dream1k", model, dream) == 2
    assert "add --videos FOLDER" in capsys.readouterr().err


def test_a_checkpoint_is_to_be_exported_first(dream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("http://127.0.0.1:9/v1", tmp_path, "dream1k", tmp_path, dream) == 2
    assert "owlcap export FOLDER OUT" in capsys.readouterr().err


def test_that_the_judge_is_not_there_is_told_once_and_before_a_model_works(
    dream: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("dream1k", model, dream, "--videos", tmp_path, "--out", tmp_path / "out")
    assert evaluate("http://127.0.0.1:9/v1", tmp_path, *arguments) == 2
    told = capsys.readouterr().err
    assert told.count("error: ") == told.count("judge lexical at http://127.0.0.1:9/v1") == 1
    assert "correct rewards.judge.base_urls" in told
    assert not any((tmp_path / "out").iterdir())
