"""Held-out evaluation during a run: clips that give no figures are told. The pool and the scorer are scripted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from owlcap.config import RlRun
from owlcap.evaluation.report import load_report
from owlcap.evaluation.scoring import GroupScorerPool
from owlcap.metrics import MetricsWriter
from owlcap.runs import RunDir
from owlcap.types import Completion, RewardBreakdown, RolloutFailure, RolloutGroup, Sample, ScoredRollout
from rl.evaluate import Evaluator
from rollout.settings import GenerationRequest

NO_OVERLAYS = "the row has no overlays\n  where: bad-1"


class Pool:
    """Captions every clip whose id does not start with "bad"."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        for request in requests:
            if request.sample.id.startswith("bad"):
                yield RolloutFailure(request.sample, "DataError", NO_OVERLAYS)
            else:
                yield RolloutGroup(request.sample, (Completion((1,), (-0.5,), "a caption", "stop", 0),))


class Scorer:
    """Gives every caption 1."""

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
        return [RewardBreakdown(1.0, {}, {})] * len(captions)

    async def close(self) -> None: ...


def evaluate(folder: Path, ids: Sequence[str], caplog: pytest.LogCaptureFixture) -> tuple[RunDir, list[str], list[str]]:
    """The run, and what was logged: all, and the warnings."""
    messages = [{"role": "user", "content": "Describe."}, {"role": "assistant", "content": "A man waves."}]
    rows = [{"id": id_, "messages": messages, "videos": ["a.mp4"]} for id_ in ids]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, object] = {
        "name": "toy",
        "run_dir": str(folder),
        "model": {"path": "model"},
        "data": {"train": "train.jsonl", "max_prompt_tokens": 100, "max_bad_rows_share": 0.25},
        "optimizer": {"lr": 1e-3},
        "algorithm": {},
        "num_steps": 6,
        "rollout": {"max_new_tokens": 20, "max_model_len": 200},
        "evaluation": {"data": str(folder / "test.jsonl")},
    }
    cfg = RlRun.model_validate(settings)
    run = RunDir.create(cfg)
    metrics = MetricsWriter(run, cfg.tracking)
    with caplog.at_level(logging.INFO):
        Evaluator(cfg).run(Pool(), cast(GroupScorerPool, Scorer()), run, metrics, 5)
    metrics.close()
    records = [record for record in caplog.records if record.name == "rl.evaluate"]
    return run, [r.getMessage() for r in records], [r.getMessage() for r in records if r.levelname == "WARNING"]


def test_the_log_says_how_many_clips_the_figures_rest_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, told, warned = evaluate(tmp_path, ["a", "b"], caplog)
    assert told == ["eval step 5, 2 of 2 clips: reward 1.000"]
    assert warned == []


def test_lost_clips_are_told_and_kept_with_their_reasons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, told, warned = evaluate(tmp_path, ["a", "b", "c", "bad-1"], caplog)
    assert told[0] == "eval step 5, 3 of 4 clips: reward 1.000"
    assert told[1].endswith("1 without caption, 0 unscored: bad-1 (DataError: the row has no overlays)")
    assert warned == []  # a quarter may be bad
    (lost,) = load_report(run.evaluation_file(5)).failed
    assert (lost.id, lost.reason) == ("bad-1", f"DataError: {NO_OVERLAYS}")


def test_more_lost_clips_than_allowed_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, _, warned = evaluate(tmp_path, ["a", "b", "bad-1", "bad-2"], caplog)
    assert len(warned) == 1
    assert "2 of 4 clips scored" in warned[0]
    assert warned[0].endswith("data.max_bad_rows_share is 0.25")
