"""The order of things on GPUs that learner and engines share: never both at once, and weights before captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from owlcap.config import RlRun
from owlcap.errors import RolloutError
from owlcap.runs import RunDir
from owlcap.training.interrupt import StopSignals
from owlcap.types import LearnerGroup, RolloutFailure, RolloutGroup, Sample
from rl.engine_thread import EngineThread
from rl.evaluate import Evaluator
from rl.state import PromptOrder
from rl.stats import LearnerStats
from rl.trainer import Actors, _Trainer
from rl.weight_sync import WeightBuckets
from rollout.settings import GenerationRequest
from tests.unit.rl.scripted import (
    NUM_ROWS,
    PER_STEP,
    Parts,
    Script,
    ScriptedLearner,
    ScriptedPool,
    ScriptedRewards,
    config,
)

GPUS = {"gpus_per_learner": 1, "gpus_per_rollout": 1, "colocate": True}
UPDATE = ["engines sleep", "learner wakes", "update"]
SYNC = ["weights", "learner rests", "engines load"]


@dataclass
class GpuScript(Script):
    """With the order of what would use or free a GPU."""

    events: list[str] = field(default_factory=list)
    engines_fail_at_step: int | None = None


class GpuPool(ScriptedPool):
    """Engines that must be awake when they are used."""

    script: GpuScript

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        self.script.events.append("generate")
        if len(self.script.asked) + 1 == self.script.engines_fail_at_step:
            raise RolloutError("engines keep failing")
        yield from super().generate(requests)

    def sync(self, refs: Sequence[Any], version: int) -> None:
        self.script.events.append("engines load")
        super().sync(refs, version)

    def sleep(self) -> None:
        self.script.events.append("engines sleep")

    def close(self) -> None:
        self.script.events.append("engines end")


class GpuLearner(ScriptedLearner):
    """A learner that must be awake when it is used."""

    script: GpuScript

    def restart(self) -> None:
        self.script.events.append("restart")
        super().restart()

    def update(self, groups: Sequence[LearnerGroup], num_prompt_tokens: Sequence[int]) -> LearnerStats:
        self.script.events.append("update")
        return super().update(groups, num_prompt_tokens)

    def weights(self) -> WeightBuckets:
        self.script.events.append("weights")
        return super().weights()

    def rest(self) -> None:
        self.script.events.append("learner rests")

    def wake(self) -> None:
        self.script.events.append("learner wakes")

    def save(self, folder: Path) -> None:
        self.script.events.append("save")
        super().save(folder)

    def export(self, folder: Path) -> None:
        self.script.events.append("export")


def events_of(cfg: RlRun, script: GpuScript, resume: bool = False) -> list[str]:
    samples = [Sample(f"clip-{i}", f"{i}.mp4", "Describe.", "-", "-") for i in range(NUM_ROWS)]
    with StopSignals() as stop, EngineThread() as thread:
        parts = Parts(GpuLearner(script), GpuPool(script), ScriptedRewards(script), thread)
        order, run = PromptOrder(NUM_ROWS, PER_STEP, cfg.seed), RunDir.create(cfg, resume)
        run.record(cfg)
        _Trainer(cfg, run, samples, order, Evaluator(cfg), cast(Actors, parts), stop).run(resume)
    return script.events


def test_engines_and_learner_take_turns(tmp_path: Path) -> None:
    events = events_of(config(tmp_path, num_steps=2, cluster=GPUS), GpuScript())
    step = ["generate", *UPDATE, *SYNC]
    assert events == [*SYNC, *step, *step, "engines sleep", "learner wakes", "save", "export"]


def test_after_a_checkpoint_the_engines_get_their_turn_back(tmp_path: Path) -> None:
    cfg = config(tmp_path, num_steps=2, cluster=GPUS, checkpoint={"every_steps": 1})
    events = events_of(cfg, GpuScript())
    saved = events.index("save")
    assert events[saved - 2 : saved + 5] == ["engines sleep", "learner wakes", "save", *SYNC, "generate"]


def test_a_lost_learner_starts_again_beside_sleeping_engines(tmp_path: Path) -> None:
    script = GpuScript(ranks_lost_at=(2,))
    events = events_of(config(tmp_path, num_steps=2, cluster=GPUS), script)
    restarted = events.index("restart")
    assert events[restarted - 1] == "update"  # the lost one, with the engines asleep
    assert events[restarted + 1 : restarted + 5] == [*SYNC, "generate"]


def test_engines_that_fail_are_ended_before_the_learner_takes_its_memory_to_save(tmp_path: Path) -> None:
    script = GpuScript(engines_fail_at_step=2)
    with pytest.raises(RolloutError):
        events_of(config(tmp_path, num_steps=3, cluster=GPUS), script)
    assert script.events[-4:] == ["generate", "engines end", "learner wakes", "save"]


def test_on_gpus_of_their_own_nobody_sleeps(tmp_path: Path) -> None:
    events = events_of(config(tmp_path, num_steps=1), GpuScript())
    assert events == ["generate", "update", "weights", "engines load", "save", "export"]
