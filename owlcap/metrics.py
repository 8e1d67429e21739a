"""Numbers of a run: JSONL, TensorBoard and Ray's metrics always; W&B, MLflow or trackio by verl's Tracking when set."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import yaml

from owlcap.config import TrackingSection
from owlcap.errors import ConfigError
from owlcap.logging import get_logger
from owlcap.ray_metrics import DriverMetrics
from owlcap.runs import RunDir, disk_errors

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter
    from verl.utils.tracking import Tracking

logger = get_logger(__name__)
CHARTS = {"a step": {"timeline": ["Multiline", ["share/.*"]], "seconds": ["Multiline", ["seconds/.*"]]}}


class MetricsWriter:
    """Writes named numbers of a step, each under "prefix/name"; names that hold a "/" keep their own prefix.

    Args:
        run: where to write.
        tracking: further backends.
        resumed_at: the step a run continues from; what was written after it is dropped first.

    Raises:
        ConfigError: a backend's package is not installed.
    """

    def __init__(self, run: RunDir, tracking: TrackingSection, resumed_at: int | None = None) -> None:
        self._run = run
        if resumed_at is not None:
            run.truncate_after(resumed_at)
        self._tensorboard = _tensorboard(run, resumed_at)
        self._ray = DriverMetrics(run.path.name)
        self._tracking = _start_tracking(run, tracking) if tracking.backends else None

    def log(self, step: int, values: Mapping[str, float], prefix: str = "train") -> None:
        """Write one row. A value that is not finite becomes null in the JSONL, with a warning.

        The row is on disk when this returns, so that a run killed afterwards has lost nothing.
        """
        named = {name if "/" in name else f"{prefix}/{name}": float(value) for name, value in values.items()}
        finite = {name: value for name, value in named.items() if math.isfinite(value)}
        if len(finite) < len(named):
            bad = ", ".join(f"{name}={value}" for name, value in named.items() if name not in finite)
            logger.warning("step %d: not finite, written as null: %s", step, bad)
        row = {"step": step, "time": round(time.time(), 3), **{name: finite.get(name) for name in named}}
        with disk_errors(self._run.metrics_file), self._run.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        for name, value in finite.items():
            self._tensorboard.add_scalar(name, value, step)
        self._ray.publish(step, finite)
        if self._tracking is not None:
            self._tracking.log(finite, step)

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`: those steps are done again."""
        self._run.truncate_after(step)
        self._tensorboard.close()
        self._tensorboard = _tensorboard(self._run, step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Show a picture, uint8 [H, W, 3], in TensorBoard."""
        self._tensorboard.add_image(name, pixels, step, dataformats="HWC")

    def close(self, failed: bool = False) -> None:
        """Flush every backend; `failed` marks the run so where a backend knows the difference."""
        self._tensorboard.close()
        if self._tracking is not None:
            self._tracking.finish(exit_code=int(failed))


def read_metrics(run: RunDir) -> list[dict[str, float | None]]:
    """All rows of metrics.jsonl, in the order written; a last line cut short by a kill is left out."""
    if not run.metrics_file.exists():
        return []
    lines = run.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _tensorboard(run: RunDir, resumed_at: int | None) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.tensorboard), purge_step=None if resumed_at is None else resumed_at + 1)
    writer.add_custom_scalars(CHARTS)
    return writer


def _start_tracking(run: RunDir, tracking: TrackingSection) -> Tracking:
    from verl.utils.tracking import Tracking

    os.environ.setdefault("WANDB_DIR", str(run.path))  # else into the folder the command was started in
    # Tracking asks its config for a "trainer" entry (W&B's proxy); ours has none.
    config = yaml.safe_load(run.config_file.read_text(encoding="utf-8")) | {"trainer": {}}
    try:
        return Tracking(tracking.project, run.path.name, list(tracking.backends), config)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tracking.backends asks for {', '.join(tracking.backends)}, but package {error.name} is not installed",
            where="tracking.backends",
            allowed="wandb, mlflow, trackio, each with its package installed; or []",
            cure=f"pip install {error.name}, or set tracking.backends=[]",
        ) from error
