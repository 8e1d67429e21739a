"""A short RL run on toy data, for tests that interrupt it in one way or another.

Eight clips, one of them an empty file, at four prompts a step: an epoch is two steps. Two learner ranks, two engines.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

from owlcap.config import RlRun
from owlcap.data.rows import read_rows
from owlcap.data.toy.world import make_toy_world
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir

NUM_STEPS = 4
# A random policy's captions state no facts, so CSER gives all of them 0; letters differ.
REWARD = """
from owlcap.types import Score


class ShareOfVowels:
    name = "vowels"

    def __init__(self, rewards, options):
        pass

    async def score_group(self, sample, captions):
        return [Score(sum(c in "aeiou" for c in text) / max(1, len(text))) for text in captions]
"""
NOT_REPEATABLE = ("time", "seconds/", "share/", "rollout/restarts", "judge/", "features/")  # wall time, caches


def make_world(root: Path) -> Path:
    """A toy data set with one broken clip, and a random policy with its vocabulary."""
    from owlcap.models.tiny import make_tiny_model  # imports torch

    toy = make_toy_world(root / "data", num_train=8, num_validation=4, num_test=4, seed=1, workers=1, progress=None)
    rows = read_rows(toy.train)
    Path(rows[5].video).write_bytes(b"")
    make_tiny_model(root / "model", [text for row in rows for text in (row.caption, row.reference)], seed=0)
    (root / "reward.py").write_text(REWARD)
    return root


def config(world: Path, folder: Path, **changes: object) -> RlRun:
    """The run of `world`, written to folder/run."""
    settings: dict[str, object] = {
        "name": "run",
        "run_dir": str(folder),
        "num_steps": NUM_STEPS,
        "model": {
            "path": str(world / "model"),
            "dtype": "fp32",
            "freeze_projector": True,
            "gradient_checkpointing": False,
        },
        "video": {
            "fps": 4,
            "min_frames": 4,
            "max_frames": 4,
            "min_pixels": 3136,
            "max_pixels": 3136,
            "total_pixels": 4 * 3136,
        },
        "data": {"train": str(world / "data" / "train.jsonl"), "max_prompt_tokens": 100, "max_bad_rows_share": 1.0},
        "optimizer": {"lr": 1e-3, "schedule": "constant"},
        "cluster": {"learner_ranks": 2, "cpus_per_learner": 0.5, "rollout_workers": 2, "cpus_per_rollout": 0.4},
        "rollout": {
            "group_size": 3,
            "prompts_per_step": 4,
            "max_new_tokens": 12,
            "max_model_len": 128,
            "max_num_seqs": 16,
            "kv_cache_gib": 0.1,
        },
        "rewards": {"terms": [{"name": "cser"}, {"name": f"{world}/reward.py:ShareOfVowels"}]},
        "algorithm": {"tokens_per_micro_batch": 256},
        "evaluation": {"data": str(world / "data" / "test.jsonl"), "every_steps": 2, "num_clips": 4, "sampled": True},
        "checkpoint": {"every_steps": 1, "keep": NUM_STEPS},
    }
    return RlRun.model_validate(settings | changes)


def repeatable(run: RunDir, *apart: str) -> list[dict[str, float | None]]:
    left_out = (*NOT_REPEATABLE, *apart)
    return [{name: value for name, value in row.items() if not name.startswith(left_out)} for row in read_metrics(run)]


def assert_same_run(a: RunDir, b: RunDir, *apart: str) -> None:
    """Equal metrics (`apart` from some), captions, evaluations and weights, to the last bit."""
    assert repeatable(a, *apart) == repeatable(b, *apart)
    for step in range(1, NUM_STEPS + 1):
        assert a.rollouts_file(step).read_text() == b.rollouts_file(step).read_text()
    for file in a.evaluations.iterdir():
        assert file.read_text() == (b.evaluations / file.name).read_text()
    left, right = load_file(a.model / "model.safetensors"), load_file(b.model / "model.safetensors")
    assert left.keys() == right.keys()
    for name, weight in left.items():
        np.testing.assert_array_equal(weight, right[name], err_msg=name)


def prompts_of(run: RunDir, step: int) -> list[str]:
    """Ids of the prompts in a step's rollouts, in their order."""
    return [json.loads(line)["id"] for line in run.rollouts_file(step).read_text().splitlines()]


def name_of(process: psutil.Process) -> str:
    """What a process calls itself; Ray's write it over their command line. Empty when it has ended."""
    try:
        return "".join(process.cmdline()[:1]).strip()
    except psutil.NoSuchProcess:
        return ""
