"""Scripted actors around the driver's real loop."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from owlcap.config import RlRun
from owlcap.errors import CheckpointError, RolloutError
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, Layout
from owlcap.training.group import LearnerLostError
from owlcap.training.interrupt import StopSignals
from owlcap.types import (
    Completion,
    LearnerGroup,
    RewardBreakdown,
    RolloutFailure,
    RolloutGroup,
    Sample,
    ScoredRollout,
    Unscored,
)
from rewards.chat import Usage
from rl.engine_thread import EngineThread
from rl.evaluate import Evaluator
from rl.state import PromptOrder
from rl.stats import LearnerStats
from rl.trainer import Actors, _Trainer
from rl.weight_sync import WeightBuckets
from rollout.settings import GenerationRequest

NUM_ROWS, PER_STEP = 40, 10


@dataclass
class Script:
    """What happens, and what was seen."""

    bad_clips: frozenset[str] = frozenset()
    equal_rewards: frozenset[str] = frozenset()  # of these clips
    unscored_from_version: int | None = None
    sync_fails_at: int | None = None
    signal_at_update: int | None = None
    samples_from: int | None = None  # this policy version, whatever is synced
    ranks_lost_at: tuple[int, ...] = ()  # calls of update, counted over restarts
    disk_is_full: bool = False
    links: dict[str, str] = field(default_factory=dict)  # of the run's files
    repetition: float = 0.0
    saves: int = 0
    asked: list[list[str]] = field(default_factory=list)
    learned: list[list[str]] = field(default_factory=list)
    version: int = 0
    exported: bool = False


class ScriptedPool:
    """Answers in reverse order, as engines may."""

    num_restarts = 0

    def __init__(self, script: Script) -> None:
        self.script = script

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        self.script.asked.append([request.sample.id for request in requests])
        for request in reversed(requests):
            if request.sample.id in self.script.bad_clips:
                yield RolloutFailure(request.sample, "VideoError", "the file is empty\n  where: a.mp4")
                continue
            version = self.script.version if self.script.samples_from is None else self.script.samples_from
            completions = tuple(Completion((1, 2), (-0.5, -0.5), f"{i}", "stop", version) for i in range(2))
            yield RolloutGroup(request.sample, completions, prompt=request.sample.id, num_prompt_tokens=5)

    def sync(self, refs: Sequence[Any], version: int) -> None:
        if version == self.script.sync_fails_at:
            raise RolloutError("an engine is gone")
        self.script.version = version

    def versions(self) -> tuple[int, ...]:
        return (self.script.version,)


class ScriptedRewards:
    """Scores a caption by its number; without scores from a policy version on."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
        limit = self.script.unscored_from_version
        if limit is not None and self.script.version >= limit:
            return [Unscored("cser", "the judge is away")] * len(captions)
        if sample.id in self.script.equal_rewards:
            return [RewardBreakdown(1.0, {}, {})] * len(captions)
        return [RewardBreakdown(float(caption), {}, {"repetition": self.script.repetition}) for caption in captions]

    def usage(self) -> Usage:
        return Usage(num_requests=10 * len(self.script.asked), usd=0.5 * len(self.script.asked))

    async def close(self) -> None: ...


class ScriptedLearner:
    """Counts updates; its checkpoint is that count."""

    layout = Layout(1, 0, "fp32", ())

    def __init__(self, script: Script) -> None:
        self.script, self.updates, self.calls, self.restarts = script, 0, 0, 0

    def restart(self) -> None:
        self.updates = 0
        self.restarts += 1

    def update(self, groups: Sequence[LearnerGroup], num_prompt_tokens: Sequence[int]) -> LearnerStats:
        if len(self.script.learned) + 1 == self.script.signal_at_update:
            signal.raise_signal(signal.SIGTERM)
        self.calls += 1
        if self.calls in self.script.ranks_lost_at:
            raise LearnerLostError("learner rank 1 died while updating the policy")
        self.script.learned.append([str(group.prompt) for group in groups])
        self.updates += 1
        zeros = dict.fromkeys(LearnerStats.__dataclass_fields__, 0.0)
        return LearnerStats(**cast("dict[str, Any]", zeros))

    def weights(self) -> WeightBuckets:
        return WeightBuckets((), 0)

    def save(self, folder: Path) -> None:
        self.script.saves += 1
        if self.script.disk_is_full:
            raise CheckpointError("checkpoint cannot be written (no space)")
        (folder / "updates").write_text(str(self.updates))

    def load(self, folder: Path) -> None:
        self.updates = int((folder / "updates").read_text())

    def export(self, folder: Path) -> None:
        self.script.exported = True
        folder.mkdir(exist_ok=True)
        (folder / "updates").write_text(str(self.updates))


def config(folder: Path, **changes: object) -> RlRun:
    settings: dict[str, object] = {
        "name": "toy",
        "run_dir": str(folder),
        "model": {"path": "model"},
        "data": {"train": "train.jsonl", "max_prompt_tokens": 100},
        "optimizer": {"lr": 1e-3},
        "algorithm": {},
        "num_steps": 6,
        "rollout": {"group_size": 2, "prompts_per_step": PER_STEP, "max_new_tokens": 20, "max_model_len": 200},
        "checkpoint": {"every_steps": 100},
    }
    return RlRun.model_validate(settings | changes)


def train(cfg: RlRun, script: Script, resume: bool = False) -> tuple[Path, ScriptedLearner]:
    samples = [Sample(f"clip-{i}", f"{i}.mp4", "Describe.", "-", "-") for i in range(NUM_ROWS)]
    learner = ScriptedLearner(script)
    order = PromptOrder(NUM_ROWS, PER_STEP, cfg.seed)
    with StopSignals() as stop, EngineThread() as thread:
        actors = cast(Actors, Parts(learner, ScriptedPool(script), ScriptedRewards(script), thread))
        run = RunDir.create(cfg, resume)
        run.record(cfg)
        for name, target in script.links.items():
            (run.path / name).symlink_to(target)
        trainer = _Trainer(cfg, run, samples, order, Evaluator(cfg), actors, stop)
        return trainer.run(resume), learner


@dataclass
class Parts:
    """Shaped as Actors."""

    learner: ScriptedLearner
    pool: ScriptedPool
    rewards: ScriptedRewards
    engine_thread: EngineThread
    overlays: None = None


def checkpoint(cfg: RlRun) -> Path:
    latest = CheckpointStore(Path(cfg.run_dir) / cfg.name / "checkpoints", 1).latest()
    assert latest is not None
    return latest
