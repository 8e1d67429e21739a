"""Held-out evaluation during a run: greedy captions, and sampled ones when asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from owlcap.config import RlRun
from owlcap.data.rows import read_rows
from owlcap.evaluation.captions import GroupSource, evaluate_with_pool
from owlcap.evaluation.report import CaptionReport, save_report
from owlcap.evaluation.scoring import GroupScorerPool
from owlcap.evaluation.table import count_line
from owlcap.logging import get_logger
from owlcap.metrics import MetricsWriter
from owlcap.runs import RunDir
from owlcap.types import Sample, SamplingSettings
from rl.collect import scoring_deadline
from rl.state import sampling_seed

SAMPLED_STEP = -1  # seeds of sampled evaluation: the same draws at every evaluation, and no training step's
SHOWN = ("reward", "cser", "f1")  # in the log

logger = get_logger(__name__)


class Evaluator:
    """Evaluates the policy in the rollout pool on the run's held-out clips.

    Raises:
        DataError: the data cannot be read.
    """

    def __init__(self, cfg: RlRun) -> None:
        self._cfg = cfg
        data = cfg.evaluation.data
        self._samples: Sequence[Sample] = read_rows(data, cfg.data)[: cfg.evaluation.num_clips] if data else ()

    def run(
        self, pool: GroupSource, scorer: GroupScorerPool, run: RunDir, metrics: MetricsWriter, step: int
    ) -> CaptionReport:
        """Evaluate after `step` updates, write the reports, log the figures; the greedy report."""
        greedy = SamplingSettings(temperature=0.0, max_new_tokens=self._cfg.rollout.max_new_tokens)
        report = self._one(pool, scorer, metrics, step, greedy, "eval")
        if self._cfg.evaluation.sampled:
            seed = sampling_seed(self._cfg.seed, SAMPLED_STEP, 0)
            sampled = replace(greedy, temperature=1.0, seed=seed)
            save_report(
                self._one(pool, scorer, metrics, step, sampled, "eval_sampled"), run.evaluation_file(step, sampled=True)
            )
        # Last, since a resumed run takes this file as the sign that the evaluation is complete.
        save_report(report, run.evaluation_file(step))
        return report

    def _one(
        self,
        pool: GroupSource,
        scorer: GroupScorerPool,
        metrics: MetricsWriter,
        step: int,
        sampling: SamplingSettings,
        prefix: str,
    ) -> CaptionReport:
        started = time.perf_counter()
        deadline_s = scoring_deadline(self._cfg.rewards, self._cfg.rollout) * max(
            1.0, len(self._samples) / self._cfg.rollout.prompts_per_step
        )
        report = evaluate_with_pool(
            pool, scorer, self._samples, sampling, name=f"{prefix} step {step}", deadline_s=deadline_s
        )
        metrics.log(step, {**report.scalars(), f"seconds/{prefix}": time.perf_counter() - started}, prefix=prefix)
        self._tell(report)
        return report

    def _tell(self, report: CaptionReport) -> None:
        """Log the figures and what they rest on; a warning where more clips than may be bad gave no caption."""
        figures = report.scalars()
        shown = "  ".join(f"{name} {figures[name]:.3f}" for name in SHOWN if name in figures)
        logger.info("%s, %d of %d clips: %s", report.name, report.num_scored, report.num_clips, shown)
        allowed = self._cfg.data.max_bad_rows_share
        if report.num_failed > allowed * report.num_clips:
            logger.warning("%s; data.max_bad_rows_share is %g", count_line(report), allowed)
        elif report.failed or report.unscored:
            logger.info(count_line(report))
