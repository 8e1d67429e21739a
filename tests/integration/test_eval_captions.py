"""`owlcap eval captions` on toy clips: captions from a file, and a model's own through Ray, vLLM and reward actors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.cli import main
from owlcap.config import RlRun
from owlcap.data.rows import read_rows
from owlcap.data.toy import ToyWorld, make_toy_world
from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.benchmarks import coco
from owlcap.evaluation.benchmarks.generating import TEXTS_FILE, TextSource, make_texts
from owlcap.evaluation.benchmarks.saving import load_result
from owlcap.evaluation.benchmarks.values import Case
from owlcap.evaluation.report import load_report
from owlcap.evaluation.run import run_eval_captions
from tests.judge_server import JudgeServer, failure
from tests.judge_server import answer as completion


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ToyWorld:
    return make_toy_world(tmp_path_factory.mktemp("world") / "toy", num_train=1, num_validation=1, num_test=6, seed=0)


def write_captions(path: Path, captions: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"id": id_, "caption": text}) + "\n" for id_, text in captions.items()))
    return path


def test_references_as_captions_score_the_most_there_is(world: ToyWorld, tmp_path: Path) -> None:
    captions = {sample.id: sample.reference for sample in read_rows(world.test)}
    report = run_eval_captions(write_captions(tmp_path / "perfect.jsonl", captions), world.test)
    assert (report.num_clips, report.num_failed, report.num_unscored) == (6, 0, 0)
    for metric in ("correctness", "completeness", "f1", "motion_f1", "detail_f1"):
        assert report.figure(metric).mean == 1.0
    assert report.mean("cser") == 2.0


def test_a_clip_left_out_of_the_file_is_named_and_only_asked_for_clips_count(world: ToyWorld, tmp_path: Path) -> None:
    samples = read_rows(world.test)
    captions = {sample.id: sample.reference for sample in samples if sample is not samples[1]}
    report = run_eval_captions(write_captions(tmp_path / "some.jsonl", captions), world.test, num_clips=3)
    assert [row.id for row in report.rows] == [samples[0].id, samples[2].id]
    assert [problem.id for problem in report.failed] == [samples[1].id]


def test_brief_captions_are_compared_clip_by_clip_with_an_earlier_report(world: ToyWorld, tmp_path: Path) -> None:
    samples = read_rows(world.test)
    full = write_captions(tmp_path / "full.jsonl", {sample.id: sample.reference for sample in samples})
    brief = write_captions(tmp_path / "brief.jsonl", {sample.id: sample.caption for sample in samples})
    before, shown = tmp_path / "brief.json", []
    report = run_eval_captions(brief, world.test, out=before)
    run_eval_captions(full, world.test, against=before, show=shown.append)
    assert load_report(before) == report
    assert report.mean("correctness") == 1.0  # brief captions are true,
    assert report.mean("completeness") < 1.0  # and leave facts out
    lines = {line.split()[0]: line for line in shown[0].splitlines()}
    assert f"+{1.0 - report.mean('completeness'):.3f}" in lines["completeness"]


def test_captions_of_another_data_set_are_refused(world: ToyWorld, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="belong to no clip of the data, the first is 'other-1'"):
        run_eval_captions(write_captions(tmp_path / "other.jsonl", {"other-1": "A man."}), world.test)


def test_a_source_that_is_neither_model_nor_file_is_told(world: ToyWorld, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        run_eval_captions(tmp_path / "nowhere", world.test)


def test_a_served_policy_is_asked_for_captions_and_a_refused_clip_is_named(world: ToyWorld) -> None:
    samples = read_rows(world.test)
    server = JudgeServer()
    try:
        server.replies = [completion(samples[0].reference), failure(400, "too long")]
        report = run_eval_captions(server.url, world.test, served_model="policy", num_clips=2)
    finally:
        server.close()
    assert report.name == "policy"
    assert report.num_scored == report.num_failed == 1
    assert "too long" in report.failed[0].reason
    assert {request["temperature"] for request in server.requests if "messages" in request} == {0.0}


def test_text_metrics_are_shown_beside_cser_and_kept_as_a_result(
    world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(coco, "find_java", lambda: None)  # its programs have tests of their own
    captions = {sample.id: sample.reference for sample in read_rows(world.test)}
    source = write_captions(tmp_path / "perfect.jsonl", captions)
    with pytest.raises(SystemExit) as end:
        main(["eval", "captions", str(source), str(world.test), "--text-metrics", "--out", str(tmp_path / "r.json")])
    assert not end.value.code
    assert "METEOR is unavailable" in capsys.readouterr().out
    result = load_result(tmp_path / "r_text_metrics")
    assert result.figures["bleu_4"].value == pytest.approx(1.0)
    assert result.figures["rouge_l"].value == 1.0


@pytest.mark.parametrize(("num_clips", "num_completions"), [(0, 1), (None, 0), (None, 2)])
def test_counts_that_make_no_sense_are_refused(
    world: ToyWorld, tmp_path: Path, num_clips: int | None, num_completions: int
) -> None:
    with pytest.raises(ConfigError):
        run_eval_captions(tmp_path, world.test, num_clips=num_clips, num_completions=num_completions)


@pytest.mark.slow
def test_a_model_captions_the_clips_on_ray_and_a_missing_video_is_named(
    world: ToyWorld, tiny_policy: Path, tmp_path: Path, ray_cluster: None
) -> None:
    rows = [json.loads(line) for line in world.test.read_text().splitlines()]
    for row in rows:
        row["videos"] = [str(world.test.parent / row["videos"][0])]
    rows[2]["videos"] = ["gone.mp4"]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[tuple[int, int]] = []
    report = run_eval_captions(
        tiny_policy,
        data,
        num_clips=4,
        sampled=True,
        num_completions=2,
        config=toy_config(tiny_policy, data),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [problem.id for problem in report.failed] == [rows[2]["id"]]
    assert report.failed[0].reason.startswith("VideoError: the video file cannot be opened")
    assert [row.id for row in report.rows] == [rows[i]["id"] for i in (0, 1, 3)]
    assert all(len(set(row.captions)) == 2 for row in report.rows)  # drawn, each from its own seed
    assert report.figure("cser").num_clips == 3
    assert report.mean("completeness") < 0.5  # of a model that has learnt nothing


@pytest.mark.slow
def test_a_benchmarks_texts_are_made_on_ray_and_a_stopped_run_asks_for_the_rest(
    world: ToyWorld, tiny_policy: Path, tmp_path: Path, ray_cluster: None
) -> None:
    samples = read_rows(world.test)[:3]
    cases = [Case(s.id, "all", Path(s.video).stem, s.prompt, s.reference, s.id) for s in samples]
    cases.append(Case("gone", "all", "gone", "Describe.", "", "gone"))
    videos = Path(samples[0].video).parent
    source = TextSource(str(tiny_policy), videos, toy_config(tiny_policy, world.test), max_new_tokens=6)
    make_texts(source, [], tmp_path / "out")
    row = {"id": samples[1].id, "caption": "A man waves.", "prompt": samples[1].prompt}
    (tmp_path / "out" / TEXTS_FILE).write_text(json.dumps(row) + "\n")
    seen: list[tuple[int, int]] = []
    texts, problems = make_texts(source, cases, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert texts.keys() == {sample.id for sample in samples}
    assert texts[samples[1].id] == "A man waves."
    assert [problem.id for problem in problems] == ["gone"]
    assert seen == [(2, 4), (3, 4)]
    assert make_texts(source, cases[:3], tmp_path / "out")[0] == texts


def toy_config(model: Path, data: Path) -> RlRun:
    """One small engine, 12 tokens a caption."""
    return RlRun.model_validate(
        {
            "name": "evaluation",
            "model": {"path": str(model), "dtype": "fp32"},
            "video": {"fps": 6, "min_frames": 12, "max_frames": 12, "min_pixels": 784, "max_pixels": 3136},
            "data": {"train": str(data), "max_prompt_tokens": 200},
            "optimizer": {"lr": 1e-4},
            "cluster": {"cpus_per_rollout": 0.5},
            "rollout": {"max_new_tokens": 12, "max_model_len": 256, "kv_cache_gib": 0.25},
            "rewards": {"terms": [{"name": "cser"}]},
            "algorithm": {},
        }
    )
