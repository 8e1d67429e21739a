"""A run whose learner sends its weights itself, and is lost while it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.buckets import WeightDigest
from owlcap.training.group import LearnerLostError
from owlcap.training.interrupt import StopSignals
from owlcap.types import Sample
from rl.engine_thread import EngineThread
from rl.evaluate import Evaluator
from rl.state import PromptOrder
from rl.trainer import Actors, _Trainer
from rl.weight_sync import DirectWeights, WeightBuckets
from rollout.transfer import EngineActors
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


@dataclass
class SendScript(Script):
    lost_at_send: int = 0  # which transfer breaks off, from 1
    sends: int = 0


class SendingLearner(ScriptedLearner):
    script: SendScript

    def weights(self) -> Any:
        return DirectWeights(self.send, lambda: WeightBuckets((), 0))

    def send(self, engines: EngineActors) -> WeightDigest:
        self.script.sends += 1
        if self.script.sends == self.script.lost_at_send:
            raise LearnerLostError("sending the weights did not end within 300 s on learner ranks [0]")
        return WeightDigest()


class ReceivingPool(ScriptedPool):
    def receive(
        self, send: Callable[[EngineActors], WeightDigest], later: Callable[[], Sequence[Any]], version: int
    ) -> WeightDigest:
        sent = send(EngineActors((), 1))
        self.script.version = version
        return sent


def test_a_learner_lost_in_a_transfer_starts_again_once_and_the_run_goes_on(tmp_path: Path) -> None:
    cfg = config(tmp_path, num_steps=3, checkpoint={"every_steps": 1})
    script = SendScript(lost_at_send=2)
    learner = SendingLearner(script)
    samples = [Sample(f"clip-{i}", f"{i}.mp4", "Describe.", "-", "-") for i in range(NUM_ROWS)]
    order, run = PromptOrder(NUM_ROWS, PER_STEP, cfg.seed), RunDir.create(cfg, resume=False)
    run.record(cfg)
    with StopSignals() as stop, EngineThread() as thread:
        parts = cast(Actors, Parts(learner, ReceivingPool(script), ScriptedRewards(script), thread))
        _Trainer(cfg, run, samples, order, Evaluator(cfg), parts, stop).run(resume=False)
    assert learner.restarts == 1
    assert script.sends == 5  # after three steps, one of them twice, and after the restart
    assert script.version == 3
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]
