"""Reinforcement learning: `owlcap rl`. The driver's loop; actors do the work.

    prompts ─> RolloutPool (vLLM) ─> groups ─> RewardPool ─> scored groups        rl.pipeline, rl.collect
            ─> advantages                                                        rl.step
            ─> LearnerClient (DeepSpeed ranks): one update                       rl.learner
            ─> weights to every engine                                           rl.weight_sync
            ─> metrics, captions, evaluation every K steps, checkpoint every M

A step is done when the update is applied; the state between two steps is what a checkpoint holds. When a learner rank
is lost, all ranks are started again from the last checkpoint and the steps after it are done once more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import RlRun
from owlcap.data.overlays import check_overlays
from owlcap.data.row_file import RowFile
from owlcap.errors import OwlcapError
from owlcap.logging import get_logger, setup_logging
from owlcap.metrics import MetricsWriter
from owlcap.models.load import check_motion
from owlcap.runs import RunDir, disk_errors
from owlcap.training.checkpoint import CheckpointMeta, CheckpointStore, DataCursor, check_run
from owlcap.training.cluster import shared_bundles, start_ray
from owlcap.training.group import LearnerLostError
from owlcap.training.interrupt import Interrupted, StopSignals, ends_on_signals, interruption
from owlcap.training.origin import Origin, origin_of
from owlcap.training.progress import progress
from owlcap.types import Sample, ScoredGroup
from rewards.chat import Usage
from rewards.monitors import MonitorState, watch
from rewards.service import RewardPool
from rl.checks import check_settings
from rl.engine_thread import EngineThread
from rl.evaluate import Evaluator
from rl.figures import headline, judge_figures, learner_figures, sync_figures, timeline
from rl.learner_client import LearnerClient
from rl.limits import check_limits
from rl.paths import absolute
from rl.pictures import show_captions
from rl.pipeline import Pipeline
from rl.placement import evaluates_at, joined_cluster, plan
from rl.state import PromptOrder, TrainerState, load_state, num_steps, save_state
from rl.step import StepBatch, assemble, write_rows
from rl.turns import Turns
from rollout.pool import RolloutPool
from rollout.settings import RolloutEngineSettings

if TYPE_CHECKING:
    from rl.overlays import OverlayActors

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Actors:
    """Everything that runs beside the driver's loop."""

    learner: LearnerClient
    pool: RolloutPool
    rewards: RewardPool
    engine_thread: EngineThread  # alone uses the pool
    overlays: OverlayActors | None = None


def run_rl(cfg: RlRun, resume: bool = False) -> Path:
    """Train by reinforcement; returns the folder of the exported policy (Hugging Face format).

    A Ray that this process has started or joined already is used and left running.

    Args:
        resume: continue `run_dir/name` from its newest checkpoint, bit for bit on a CPU.

    Raises:
        OwlcapError: with what to do; a checkpoint is written first where the learner's state is whole.
        SystemExit: SIGTERM or SIGINT; a checkpoint is written first.
    """
    cfg = absolute(cfg)
    check_settings(cfg)
    for path in {cfg.model.path, cfg.reference_model or cfg.model.path}:
        check_motion(path, cfg.motion)
    samples = RowFile(cfg.data.train, cfg.data)
    if not cfg.cluster.motion_actors:
        check_overlays(samples, cfg.motion, cfg.data)
    order = PromptOrder(len(samples), cfg.rollout.prompts_per_step, cfg.seed)
    evaluator = Evaluator(cfg)
    origin = origin_of(cfg, len(samples))
    run = RunDir.create(cfg, resume)
    with disk_errors(run.path), run.locked(), ends_on_signals("nothing was trained since this start") as stop:
        setup_logging(folder=run.logs)
        checkpoint = CheckpointStore(run.checkpoints, cfg.checkpoint.keep).latest() if resume else None
        if checkpoint is not None:
            check_run(checkpoint, cfg, origin, num_steps(cfg, order.steps_per_epoch))
        with start_ray(cfg.cluster, run.path):
            stop.arm()
            plan(cfg, joined_cluster()).check()
            if checkpoint is None:
                run.record(cfg)
            with start_actors(cfg, num_steps(cfg, order.steps_per_epoch)) as actors:
                return _Trainer(cfg, run, samples, order, evaluator, actors, stop, origin).run(resume)


@contextmanager
def start_actors(cfg: RlRun, steps: int) -> Iterator[Actors]:
    """Learner, engines and reward actors, loading side by side; all are ended at the end."""
    settings = RolloutEngineSettings.from_run(cfg)
    with ExitStack() as stack:
        engine_thread = stack.enter_context(EngineThread())
        if cfg.cluster.colocate:  # engines first: vLLM measures what is free, and the learner must find their memory so
            shared = stack.enter_context(shared_bundles(cfg.cluster))
            pool = stack.enter_context(RolloutPool(settings, cfg.cluster, shared=shared))
            pool.sleep()
            learner = LearnerClient.from_run(cfg, steps, shared)
            stack.callback(learner.close)
        else:
            learner = LearnerClient.from_run(cfg, steps)
            stack.callback(learner.close)
            pool = stack.enter_context(RolloutPool(settings, cfg.cluster))
        rewards = RewardPool(cfg.rewards, cfg.cluster)
        stack.callback(rewards.close)
        overlays = None
        if cfg.motion.enabled and cfg.cluster.motion_actors:
            from rl.overlays import OverlayActors  # imports the body models' libraries

            overlays = stack.enter_context(OverlayActors(cfg))
        report = learner.wait_started(again=True)
        rewards.wait_ready()
        rewards.check()
        logger.info(
            "%d learner ranks on %s train %.2f M parameters; %d rollout engines; %d steps",
            cfg.cluster.learner_ranks,
            report.device,
            report.num_trained / 1e6,
            len(pool),
            steps,
        )
        yield Actors(learner, pool, rewards, engine_thread, overlays)


class _Trainer:
    """The driver's side of one run."""

    def __init__(
        self,
        cfg: RlRun,
        run: RunDir,
        samples: Sequence[Sample],
        order: PromptOrder,
        evaluator: Evaluator,
        actors: Actors,
        stop: StopSignals,
        origin: Origin = (),
    ) -> None:
        self.cfg, self.run_dir, self.samples, self.order = cfg, run, samples, order
        self.evaluator, self.actors, self.origin = evaluator, actors, origin
        self.last_step = num_steps(cfg, order.steps_per_epoch)
        self.store = CheckpointStore(run.checkpoints, cfg.checkpoint.keep)
        self.pipeline = Pipeline(
            cfg, actors.engine_thread, actors.pool, actors.rewards, samples, order, self.last_step, actors.overlays
        )
        self.turns = Turns(actors.learner, actors.pool, self.pipeline.run, shared=cfg.cluster.colocate)
        self.state = TrainerState()
        self.saved_step = 0  # a checkpoint of step 0 would hold nothing that model.path does not
        self.stop = stop
        self.learner_is_whole = True
        self.num_learner_restarts = 0
        self.usage = Usage()  # of the judges since this start, until the last step

    def run(self, resume: bool) -> Path:
        """Train from the newest checkpoint or from the start, and export."""
        if resume:
            self._restore()
            self.run_dir.record(self.cfg)
        if self.state.step < self.last_step:
            self.run_dir.set_model_aside()
        metrics = MetricsWriter(self.run_dir, self.cfg.tracking, resumed_at=self.state.step if resume else None)
        failed = True
        try:
            with disk_errors(self.run_dir.path):
                model = self._train_to_the_end(metrics)
            failed = False
        except (Interrupted, SystemError) as error:
            interrupted = interruption(error)
            if interrupted is None:
                raise
            self._save_before_leaving()
            logger.warning("%s: stopped after step %d; go on with --resume", interrupted, self.state.step)
            raise SystemExit(interrupted.exit_code) from interrupted
        except OwlcapError:
            self._save_before_leaving()
            raise
        finally:
            metrics.close(failed=failed)
        self._log_usage()
        return model

    def _train_to_the_end(self, metrics: MetricsWriter) -> Path:
        """Train and export; a learner that is lost, in its own restart too, starts again.

        Raises:
            LearnerLostError: that has been done cluster.max_learner_restarts times already.
        """
        lost: LearnerLostError | None = None
        while True:
            try:
                if lost is not None:
                    self._rebuild_learner(lost)
                    metrics.rewind(self.state.step)
                self._train(metrics)
                self.turns.end()
                self.actors.learner.export(self.run_dir.model)
                logger.info("policy written to %s", self.run_dir.model)
                return self.run_dir.model
            except LearnerLostError as error:
                self.learner_is_whole = False
                if self.num_learner_restarts >= self.cfg.cluster.max_learner_restarts:
                    raise
                lost = error

    def _train(self, metrics: MetricsWriter) -> None:
        self._evaluate_if_due(metrics)
        with progress("RL", self.last_step, self.state.step) as update:
            while self.state.step < self.last_step:
                values = self._step(metrics)
                self._evaluate_if_due(metrics)
                if self.state.step % self.cfg.checkpoint.every_steps == 0 or self.state.step == self.last_step:
                    self._save()
                update(self.state.step, headline(values))

    def _step(self, metrics: MetricsWriter) -> dict[str, float]:
        """One step: the figures that were logged."""
        started = time.perf_counter()
        step = self.state.step + 1
        self._wake_engines()
        taken = self.pipeline.take(step, self.state.cursor)
        collected = taken.collected
        batch = assemble(
            collected.results,
            self.cfg.algorithm,
            step,
            policy_version=self.state.policy_version,
            max_staleness=self.cfg.pipeline.max_staleness,
            max_groups=self.cfg.rollout.prompts_per_step if self.cfg.algorithm.dynamic_sampling else None,
        )
        with disk_errors(file := self.run_dir.rollouts_file(step)):
            write_rows(batch.rows, file)
        for row in batch.rows:
            if row.failure:
                logger.warning("step %d: no captions of %s (%s): %s", step, row.id, row.video, row.failure)
        check_limits(batch, self.state, self.cfg)
        scored = [result for result in collected.results if isinstance(result, ScoredGroup)]
        watched = watch(scored, self.cfg.rewards.monitors, self.state.monitors)
        for warning in watched.warnings:
            logger.warning("step %d: %s", step, warning)
        values = {**batch.values, **watched.values}
        values |= {
            "seconds/generate": collected.generate_s,
            "seconds/generate_wait": taken.waited_s,
            "seconds/judge": collected.judge_s,
            "rollout/rounds": taken.num_rounds,
        }
        usage, before = self.actors.rewards.usage(), self.usage
        values |= judge_figures(usage - before)
        self.usage = usage
        with self.stop.whole():
            if batch.groups:
                values |= self._update(batch)
            self._advance(batch, taken.cursor, watched.state)
            try:
                if batch.groups:
                    values |= self._sync()
            finally:
                values["seconds/step"] = time.perf_counter() - started
                values |= timeline(values)
                values["rollout/restarts"] = self.actors.pool.num_restarts
                values["epoch"] = self.state.cursor.epoch + self.state.cursor.batch / self.order.steps_per_epoch
                metrics.log(step, values)
        show_captions(metrics, step, scored, self.cfg)
        return values

    def _update(self, batch: StepBatch) -> dict[str, float]:
        started = time.perf_counter()
        self.turns.to_learner()
        self.learner_is_whole = False
        stats = self.actors.learner.update(batch.groups, batch.num_prompt_tokens)
        self.learner_is_whole = True
        return learner_figures(stats) | {"seconds/update": time.perf_counter() - started}

    def _sync(self) -> dict[str, float]:
        """Send the present weights on their way to the engines."""
        started = time.perf_counter()
        weights = self.actors.learner.weights()
        self.turns.to_engines()
        sync = self.pipeline.sync(weights, self.state.policy_version)
        figures = sync_figures(sync) if sync is not None else {}
        return figures | {"seconds/sync": time.perf_counter() - started}

    def _wake_engines(self) -> None:
        """Make sure that the engines hold the present weights and not the learner their GPUs."""
        if self.turns.is_learners:
            self._sync()

    def _advance(self, batch: StepBatch, cursor: DataCursor, monitors: MonitorState) -> None:
        state = self.state
        self.state = replace(
            state,
            step=state.step + 1,
            cursor=cursor,
            policy_version=state.policy_version + bool(batch.groups),
            num_prompts=state.num_prompts + len(batch.rows),
            num_failed=state.num_failed + batch.num_failed,
            monitors=monitors,
        )

    def _evaluate_if_due(self, metrics: MetricsWriter) -> None:
        step = self.state.step
        if not evaluates_at(self.cfg, step, self.last_step) or self.run_dir.evaluation_file(step).exists():
            return
        self._wake_engines()
        actors = self.actors
        source = self.pipeline.source
        self.pipeline.run(lambda: self.evaluator.run(source, actors.rewards, self.run_dir, metrics, step))

    def _log_usage(self) -> None:
        usage = self.actors.rewards.usage()
        if usage.num_requests or usage.num_cached:
            logger.info(
                "judges since this start: %d requests, %d answers from the cache, %d failed questions, "
                "%d input and %d output tokens, %.2f USD",
                usage.num_requests,
                usage.num_cached,
                usage.num_failed,
                usage.input_tokens,
                usage.output_tokens,
                usage.usd,
            )

    def _save(self) -> None:
        state, learner = self.state, self.actors.learner
        meta = CheckpointMeta(state.step, state.cursor, learner.layout, state.policy_version, self.origin)

        def write(folder: Path) -> None:
            learner.save(folder)
            save_state(state, folder)

        self.turns.to_learner()
        self.learner_is_whole = False  # ranks of which one could not write its part are out of step
        self.store.write(meta, write)
        self.learner_is_whole = True
        self.saved_step = state.step

    def _save_before_leaving(self) -> None:
        """Write a checkpoint if the learner is between two updates and this step has none yet."""
        if self.learner_is_whole and self.state.step != self.saved_step:
            self.turns.end()
            self._save()

    def _restore(self) -> None:
        """Load the newest checkpoint, if any, into the learner and the engines."""
        checkpoint = self.store.latest()
        if checkpoint is None:
            logger.warning("no complete checkpoint in %s: starting from step 0", self.store.root)
            return
        self.actors.learner.load(checkpoint)
        self.state = load_state(checkpoint)
        self.saved_step = self.state.step
        self._sync()
        logger.info("resumed from %s", checkpoint)

    def _rebuild_learner(self, error: LearnerLostError) -> None:
        """Start all ranks again, from the last checkpoint or from the start."""
        self.num_learner_restarts += 1
        limit = self.cfg.cluster.max_learner_restarts
        logger.warning("the learner starts again (%d of %d): %s", self.num_learner_restarts, limit, error)
        self.pipeline.restart()
        self.turns.to_new_learner()
        self.actors.learner.restart()
        self.state, self.saved_step = TrainerState(), 0
        self._restore()
        if not self.state.step:
            self._sync()
        self.learner_is_whole = True
