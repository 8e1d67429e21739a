"""Supervised fine-tuning: `owlcap sft`. The driver plans, counts and writes; ranks (sft.worker) compute."""

from __future__ import annotations

import time
from pathlib import Path

from owlcap.config import SftRun
from owlcap.errors import DiskError
from owlcap.logging import get_logger, setup_logging
from owlcap.metrics import MetricsWriter
from owlcap.models.load import check_motion
from owlcap.runs import RunDir, disk_errors
from owlcap.training.checkpoint import (
    CheckpointMeta,
    CheckpointStore,
    DataCursor,
    Layout,
    check_layout,
    check_run,
    load_meta,
)
from owlcap.training.cluster import start_ray
from owlcap.training.features import located, room
from owlcap.training.group import WorkerGroup, gather, make_worker_group, stop_worker_group
from owlcap.training.interrupt import Interrupted, StopSignals, ends_on_signals, interruption
from owlcap.training.origin import Origin, origin_of
from owlcap.training.progress import progress
from owlcap.training.worker import TrainingSpec
from sft.clips import Prepared
from sft.plan import SftPlan
from sft.unusable import BadClips
from sft.worker import SftTask, SftWorker, StepReport, ValidationReport

logger = get_logger(__name__)
STEP_DEADLINE_S = 3600.0
CHECKPOINT_DEADLINE_S = 3600.0
CLIPS_PER_SLICE = 128  # a rank prepares between two reports


def run_sft(cfg: SftRun, resume: bool = False) -> Path:
    """Fine-tune on captions; returns the folder of the exported policy (Hugging Face format).

    Args:
        resume: continue `run_dir/name` from its newest checkpoint, bit for bit on a CPU.

    Raises:
        OwlcapError: with what to do; checkpoints written so far stay usable.
    """
    check_motion(cfg.model.path, cfg.motion)
    plan = SftPlan.of(cfg)
    origin = origin_of(cfg, plan.num_train)
    run = RunDir.create(cfg, resume)
    with disk_errors(run.path), run.locked(), ends_on_signals("nothing was trained since this start") as stop:
        setup_logging(folder=run.logs)
        checkpoint = CheckpointStore(run.checkpoints, cfg.checkpoint.keep).latest() if resume else None
        if checkpoint is not None:
            check_run(checkpoint, cfg, origin, plan.total_steps)
        cfg = _absolute(cfg)
        if checkpoint is None:
            run.record(cfg)
        with start_ray(cfg.cluster, run.path):
            stop.arm()
            group = make_worker_group(SftWorker, (_spec(cfg, plan), SftTask(cfg.data, cfg.sft)), cfg.cluster)
            try:
                return _Trainer(cfg, run, plan, group, stop, origin).run(resume)
            finally:
                stop_worker_group(group)


def _spec(cfg: SftRun, plan: SftPlan) -> TrainingSpec:
    return TrainingSpec(
        model=cfg.model,
        video=cfg.video,
        optimizer=cfg.optimizer,
        deepspeed=cfg.deepspeed,
        total_steps=plan.total_steps,
        seed=cfg.seed,
        threads=cfg.cluster.threads_per_actor,
        features=located(cfg),
        motion=cfg.motion,
    )


def _absolute(cfg: SftRun) -> SftRun:
    """Ranks may not run in the driver's folder: paths become absolute. A model's Hub name stays one."""
    validation = cfg.data.validation and str(Path(cfg.data.validation).absolute())
    data = cfg.data.model_copy(update={"train": str(Path(cfg.data.train).absolute()), "validation": validation})
    path = Path(cfg.model.path)
    model = cfg.model.model_copy(update={"path": str(path.absolute())}) if path.is_dir() else cfg.model
    sft = cfg.sft.model_copy(update={"qa": cfg.sft.qa and str(Path(cfg.sft.qa).absolute())})
    return cfg.model_copy(update={"data": data, "model": model, "sft": sft})


class _Trainer:
    """The driver's side of one run."""

    def __init__(
        self, cfg: SftRun, run: RunDir, plan: SftPlan, group: WorkerGroup, stop: StopSignals, origin: Origin
    ) -> None:
        self.cfg, self.run_dir, self.plan, self.group, self.stop = cfg, run, plan, group, stop
        self.origin = origin
        self.step = self.saved_step = 0
        self.store = CheckpointStore(run.checkpoints, cfg.checkpoint.keep)
        num_rows = plan.num_train + plan.num_validation
        self.bad = BadClips(num_rows, cfg.data.max_bad_rows_share, cfg.data.train)
        self.validation_loss: float | None = None  # of the last validation since this start

    def run(self, resume: bool) -> Path:
        """Prepare, train from the newest checkpoint or from the start, export."""
        deadline_s = self.cfg.cluster.start_deadline_s
        can_cache = all(gather(self.group.open(), deadline_s, "loading the policy"))
        use_cache = can_cache and self._prepare()
        reports = gather(self.group.start(use_cache), deadline_s, "starting DeepSpeed")
        logger.info(
            "%d ranks on %s train %.2f M parameters: %d clips, %d steps",
            len(reports),
            reports[0].device,
            reports[0].num_trained / 1e6,
            self.plan.num_train,
            self.plan.total_steps,
        )
        layout = reports[0].layout
        if resume:
            self.step = self.saved_step = self._restore(layout)
            self.run_dir.record(self.cfg)
        if self.step < self.plan.total_steps:
            self.run_dir.set_model_aside()
        # A run that crashed before its first checkpoint starts anew: nothing it wrote is kept, step 0 included.
        resumed_at = (self.step or -1) if resume else None
        metrics = MetricsWriter(self.run_dir, self.cfg.tracking, resumed_at=resumed_at)
        failed = True
        try:
            with disk_errors(self.run_dir.path):
                self._train(metrics, layout)
            failed = False
        except (Interrupted, SystemError) as error:
            interrupted = interruption(error)
            if interrupted is None:
                raise
            if self.step != self.saved_step:
                self._save(layout)
            logger.warning("%s: stopped after step %d; go on with --resume", interrupted, self.step)
            raise SystemExit(interrupted.exit_code) from interrupted
        except DiskError:
            if self.step != self.saved_step:
                self._save(layout)
            raise
        finally:
            metrics.close(failed=failed)
        gather(self.group.export(str(self.run_dir.model)), CHECKPOINT_DEADLINE_S, "exporting the policy")
        logger.info("policy written to %s", self.run_dir.model)
        return self.run_dir.model

    def _prepare(self) -> bool:
        """Fill the feature cache; False when it has no room for all clips: each step then decodes its own."""
        features, written = located(self.cfg), 0
        assert features.folder is not None
        folder, bound = Path(features.folder), features.max_gib * 2**30
        num_clips = self.plan.num_train + self.plan.num_validation
        size = CLIPS_PER_SLICE * self.cfg.cluster.learner_ranks
        with progress("clip features", num_clips) as update:
            for start in range(0, num_clips, size):
                stop = min(start + size, num_clips)
                refs = self.group.prepare(start, stop)
                reports: list[Prepared] = gather(refs, STEP_DEADLINE_S, "computing clip features")
                self.bad.add(bad for report in reports for bad in report.bad)
                update(stop, f"{len(self.bad)} unusable" if self.bad else "")
                written += sum(report.num_bytes for report in reports)
                wanted = written / stop * num_clips
                if wanted > min(bound, room(folder, written)) or not all(report.all_kept for report in reports):
                    logger.warning(
                        "%s has no room for the features of all clips (features.max_gib is %g; so far %.2f GiB of "
                        "%.2f GiB): not cached, each step decodes its clips",
                        folder,
                        features.max_gib,
                        written / 2**30,
                        wanted / 2**30,
                    )
                    return False
        return True

    def _restore(self, layout: Layout) -> int:
        """Load the newest checkpoint, if any, and return the number of steps done."""
        checkpoint = self.store.latest()
        if checkpoint is None:
            logger.warning("no complete checkpoint in %s: starting from step 0", self.store.root)
            return 0
        meta = load_meta(checkpoint)
        check_layout(checkpoint, meta.layout, layout)
        gather(self.group.load(str(checkpoint)), CHECKPOINT_DEADLINE_S, "loading the checkpoint")
        logger.info("resumed from %s", checkpoint)
        return meta.step

    def _train(self, metrics: MetricsWriter, layout: Layout) -> None:
        plan, cfg = self.plan, self.cfg
        with self.stop.whole():
            if self.step == 0:
                self._validate(metrics)
        with progress("SFT", plan.total_steps, self.step) as update:
            while self.step < plan.total_steps:
                with self.stop.whole():
                    values = self._step(metrics)
                    last = self.step == plan.total_steps
                    if last or self.step % cfg.sft.validate_every_steps == 0:
                        self._validate(metrics)
                    if last or self.step % cfg.checkpoint.every_steps == 0:
                        self._save(layout)
                known = "" if self.validation_loss is None else f"  validation {self.validation_loss:.3f}"
                update(self.step, f"loss {values['loss']:.3f}{known}")

    def _step(self, metrics: MetricsWriter) -> dict[str, float]:
        """One optimizer step: the figures that were logged."""
        epoch, batch = divmod(self.step, self.plan.steps_per_epoch)
        began = time.perf_counter()
        reports = gather(self.group.train_step(epoch, batch), STEP_DEADLINE_S, f"in step {self.step + 1}")
        seconds = time.perf_counter() - began
        self.step += 1
        self.bad.add(bad for report in reports for bad in report.bad)
        values = _step_metrics(reports, seconds, self.step / self.plan.steps_per_epoch)
        values["unusable_clips"] = len(self.bad)
        metrics.log(self.step, values)
        return values

    def _validate(self, metrics: MetricsWriter) -> None:
        if not self.plan.num_validation:
            return
        reports: list[ValidationReport] = gather(self.group.validate(), STEP_DEADLINE_S, "validating")
        self.bad.add(bad for report in reports for bad in report.bad)
        targets = sum(report.num_targets for report in reports)
        self.validation_loss = sum(report.loss_sum for report in reports) / max(1, targets)
        metrics.log(self.step, {"loss": self.validation_loss}, prefix="validation")

    def _save(self, layout: Layout) -> None:
        cursor = DataCursor(*divmod(self.step, self.plan.steps_per_epoch))
        meta = CheckpointMeta(step=self.step, cursor=cursor, layout=layout, origin=self.origin)
        self.store.write(meta, self._write_ranks)
        self.saved_step = self.step

    def _write_ranks(self, folder: Path) -> None:
        gather(self.group.save(str(folder)), CHECKPOINT_DEADLINE_S, "writing a checkpoint")


def _step_metrics(reports: list[StepReport], seconds: float, epoch: float) -> dict[str, float]:
    """Numbers of one step over all ranks."""
    stats = reports[0].stats
    targets = sum(report.num_targets for report in reports)
    tokens = sum(report.num_tokens for report in reports)
    return {
        "loss": sum(report.loss_sum for report in reports) / max(1, targets),
        "lr": stats.lr,
        "grad_norm": stats.grad_norm,
        "skipped_steps": stats.num_skipped,
        "epoch": epoch,
        "sequences": sum(report.num_sequences for report in reports),
        "target_tokens": targets,
        "padding_share": 1.0 - tokens / max(1, sum(report.num_padded for report in reports)),
        "tokens_per_second": tokens / seconds,
        "seconds/step": seconds,
    }
