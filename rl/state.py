"""Where a run is: step, place in the data, policy version; and the order of prompts and seeds that follow from it.

Nothing here keeps random state: the prompts of a step follow from (run seed, epoch), the sampling seeds
from (run seed, step, place in the step). A resumed run therefore asks for the same captions again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from owlcap.config import RlRun
from owlcap.errors import CheckpointError, ConfigError
from owlcap.training.checkpoint import DataCursor
from rewards.monitors import MonitorState

STATE_FILE = "trainer.json"  # beside the learner's files in a checkpoint
SEED_BITS = 48  # far enough apart for the completions of a request, which count up from its seed


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The driver's state between two steps."""

    step: int = 0  # steps done
    cursor: DataCursor = field(default_factory=DataCursor)  # of the next step
    policy_version: int = 0  # updates applied; 0 is model.path itself
    num_prompts: int = 0  # asked for since the start of the run
    num_failed: int = 0  # of those, without a group (unreadable clips above all)
    monitors: MonitorState = field(default_factory=MonitorState)


class PromptOrder:
    """Which rows each step takes: a new shuffle an epoch, cut into steps; a rest too small for a step is left out.

    Raises:
        ConfigError: the data has fewer rows than one step takes.
    """

    def __init__(self, num_rows: int, per_step: int, seed: int) -> None:
        if num_rows < per_step:
            raise ConfigError(
                f"one step takes {per_step} prompts, the training data has {num_rows} rows",
                where="rollout.prompts_per_step",
                allowed=f"at most {num_rows}",
                cure="lower rollout.prompts_per_step or give more data",
            )
        self._num_rows, self._per_step, self._seed = num_rows, per_step, seed
        self.steps_per_epoch = num_rows // per_step

    def rows(self, cursor: DataCursor) -> list[int]:
        """Row numbers of the step at `cursor`; never none.

        Raises:
            CheckpointError: no step of these data starts there.
        """
        if not 0 <= cursor.batch < self.steps_per_epoch:
            raise CheckpointError(
                f"step {cursor.batch + 1} of an epoch is to be trained, and an epoch has {self.steps_per_epoch}: "
                f"{self._num_rows} rows, {self._per_step} prompts a step",
                where="the place in the data that the checkpoint holds",
                cure="resume with data.train and rollout.prompts_per_step of the run that wrote the checkpoint, or "
                "start a new run with another name=...",
            )
        order = np.random.default_rng((self._seed, cursor.epoch)).permutation(self._num_rows)
        first = cursor.batch * self._per_step
        return order[first : first + self._per_step].tolist()

    def after(self, cursor: DataCursor) -> DataCursor:
        """The next step's place; the last step of an epoch is followed by the first of the next."""
        if cursor.batch + 1 < self.steps_per_epoch:
            return replace(cursor, batch=cursor.batch + 1)
        return DataCursor(cursor.epoch + 1, 0)


def num_steps(cfg: RlRun, steps_per_epoch: int) -> int:
    """Steps of the whole run: `num_steps` where it is set (it may end within an epoch or span several)."""
    return cfg.num_steps if cfg.num_steps is not None else cfg.num_epochs * steps_per_epoch


def sampling_seed(run_seed: int, step: int, index: int) -> int:
    """Seed of one request: `index` is its place among the step's prompts."""
    digest = hashlib.blake2b(f"{run_seed}/{step}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % 2**SEED_BITS


def save_state(state: TrainerState, folder: Path) -> None:
    """Write the state into a checkpoint folder that is being filled."""
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")


def load_state(folder: Path) -> TrainerState:
    """Read a checkpoint's state.

    Raises:
        CheckpointError: missing or broken.
    """
    try:
        raw = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        watched = raw.get("monitors", {})  # checkpoints written before there were monitors have none
        monitors = MonitorState(**(watched | {"warned": tuple(watched.get("warned", ()))}))
        return TrainerState(**(raw | {"cursor": DataCursor(**raw["cursor"]), "monitors": monitors}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the trainer's state cannot be read ({type(error).__name__}: {error})",
            where=str(folder / STATE_FILE),
            cure="remove that checkpoint folder and resume from the one before it",
        ) from error
