"""A judge over HTTP in the real loop: unscored rollouts get no gradient, and too many of them stop the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
from aiohttp import web

from owlcap.config import RlRun
from owlcap.errors import TrainingError
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, load_meta
from rl.trainer import run_rl
from tools.judge_server import MODEL, Behaviour, JudgeServer

pytestmark = pytest.mark.slow

LAST_GOOD_STEP = 2


class FailingServer(JudgeServer):
    """Answers without a fault but to the prompts that are chosen to fail."""

    def __init__(self, fails: Callable[[str], bool]) -> None:
        super().__init__(Behaviour(faults=("malformed",)))
        self._fails = fails

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        prompt = (await request.json())["messages"][-1]["content"]  # read once: a second read does not wait
        self.behaviour = replace(self.behaviour, fail=float(self._fails(prompt)))
        return await super()._complete(request)


@dataclass(frozen=True)
class Ended:
    """A run that the judge stopped."""

    run: RunDir
    error: TrainingError

    def completions(self, step: int) -> list[dict]:
        rows = [json.loads(line) for line in self.run.rollouts_file(step).read_text().splitlines()]
        return [completion for row in rows for completion in row["completions"]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Every third pair of captions fails for two steps, then all do."""
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    root = tmp_path_factory.mktemp("world")
    toy = make_toy_world(root / "data", num_train=8, num_validation=4, num_test=4, seed=1, workers=1, progress=None)
    rows = read_rows(toy.train)
    make_tiny_model(root / "model", [text for row in rows for text in (row.caption, row.reference)], seed=0)
    run = RunDir(root / "run")

    def fails(prompt: str) -> bool:
        is_late = run.rollouts_file(LAST_GOOD_STEP).exists()  # written when the step is scored
        return is_late or hashlib.blake2b(prompt.encode()).digest()[0] % 3 == 0

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with FailingServer(fails) as server, pytest.raises(TrainingError) as caught:
            run_rl(config(root, server.url))
        yield Ended(run, caught.value)
    finally:
        ray.shutdown()


def config(root: Path, url: str) -> RlRun:
    video = {"fps": 4, "min_frames": 4, "max_frames": 4, "min_pixels": 3136, "max_pixels": 3136}
    return RlRun.model_validate(
        {
            "name": "run",
            "run_dir": str(root),
            "num_steps": 4,
            "model": {
                "path": str(root / "model"),
                "dtype": "fp32",
                "freeze_projector": True,
                "gradient_checkpointing": False,
            },
            "video": {**video, "total_pixels": 4 * 3136},
            "data": {"train": str(root / "data" / "train.jsonl"), "max_prompt_tokens": 100},
            "optimizer": {"lr": 1e-3, "schedule": "constant"},
            "cluster": {"cpus_per_learner": 0.5, "cpus_per_rollout": 0.4, "reward_workers": 2},
            "rollout": {
                "group_size": 4,
                "prompts_per_step": 4,
                "max_new_tokens": 12,
                "max_model_len": 128,
                "max_num_seqs": 16,
                "kv_cache_gib": 0.1,
            },
            "rewards": {
                "terms": [{"name": "cser"}, {"name": "length"}],
                "cser": {"mode": "joint"},
                "judge": {"kind": "openai", "model": MODEL, "base_urls": [url], "max_tries": 1},
                "cache": {"enabled": False},
                "max_unscored_share": 0.8,
            },
            "algorithm": {"tokens_per_micro_batch": 256},
            "checkpoint": {"every_steps": 100},
        }
    )


def test_too_many_unscored_rollouts_stop_the_run_with_a_checkpoint(ended: Ended) -> None:
    assert "100% of the rollouts could not be scored" in str(ended.error)
    assert "no valid reply" in str(ended.error)
    checkpoint = CheckpointStore(ended.run.checkpoints, 1).latest()
    assert checkpoint is not None
    assert load_meta(checkpoint).step == LAST_GOOD_STEP


def test_below_the_limit_unscored_rollouts_have_no_reward_and_no_gradient(ended: Ended) -> None:
    rows = {int(row["step"] or 0): row for row in read_metrics(ended.run) if "train/loss" in row}
    assert set(rows) == {1, 2}
    for step, row in rows.items():
        completions = ended.completions(step)
        unscored = [one for one in completions if one["unscored"]]
        assert 0 < len(unscored) < len(completions)
        assert {(one["reward"], one["advantage"], len(one["parts"])) for one in unscored} == {(None, None, 0)}
        learned = [one for one in completions if one["advantage"] is not None]
        assert row["train/sequences"] == len(learned) <= len(completions) - len(unscored)
        assert row["judge/failed"] > 0  # type: ignore[operator]


def test_scored_rollouts_are_logged_with_the_judges_units(ended: Ended) -> None:
    scored = [one for one in ended.completions(1) if not one["unscored"]]
    for one in scored:
        (judgement,) = one["parts"]["cser"]["judgements"]
        assert judgement["judge"] == MODEL
        assert judgement["reply_ids"]
        assert judgement["reference_units"]
