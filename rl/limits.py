"""How much may go wrong in a run before it stops: prompts without captions, rollouts without a score."""

from __future__ import annotations

from owlcap.config import RlRun
from owlcap.errors import DataError, TrainingError, first_line
from rl.state import TrainerState
from rl.step import StepBatch

MIN_PROMPTS_TO_JUDGE_DATA = 50  # before that many, a share of bad clips says little


def check_limits(batch: StepBatch, state: TrainerState, cfg: RlRun) -> None:
    """Stop a run that goes wrong, before its next update.

    Args:
        batch: of the step at hand.
        state: before it.

    Raises:
        DataError: too many prompts gave no captions since the start of the run.
        TrainingError: too many rollouts of this step are unscored.
    """
    num_failed = state.num_failed + batch.num_failed
    num_prompts = state.num_prompts + len(batch.rows)
    allowed = cfg.data.max_bad_rows_share
    if batch.num_failed and num_prompts >= MIN_PROMPTS_TO_JUDGE_DATA and num_failed > allowed * num_prompts:
        last, failure = [(row.id, first_line(row.failure)) for row in batch.rows if row.failure][-1]
        raise DataError(
            f"{num_failed} of {num_prompts} prompts gave no captions, last {last}: {failure}",
            where=f"{cfg.data.train} (each is named in the run's rollouts/ folder)",
            allowed=f"data.max_bad_rows_share={allowed:g}",
            cure="mend or remove those rows, or raise data.max_bad_rows_share; then go on with --resume",
        )
    limit = cfg.rewards.max_unscored_share
    if batch.unscored_share > limit:
        reasons = {c.unscored for row in batch.rows for c in row.completions if c.unscored}
        raise TrainingError(
            f"{batch.unscored_share:.0%} of the rollouts could not be scored",
            where=f"step {state.step + 1}: " + "; ".join(sorted(reasons)[:3]),
            allowed=f"rewards.max_unscored_share={limit:g} of a step",
            cure="mend the judge (or raise its deadlines), then go on with --resume",
        )
