"""What to export: a run directory, one of its checkpoints, or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from owlcap.config import RlRun, SftRun
from owlcap.errors import ExportError
from owlcap.inference.settings import PolicySettings, find_settings, read_run_config, run_of, settings_of_run
from owlcap.logging import get_logger
from owlcap.training.checkpoint import META, CheckpointStore

logger = get_logger(__name__)

ALLOWED = "a run directory, one of its checkpoints/step-N folders, or a Hugging Face folder (config.json, weights)"


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A policy to export, and the run it comes from where there is one. Either `model` or `checkpoint` is set."""

    model: Path | None  # Hugging Face folder
    checkpoint: Path | None  # of owlcap.training.checkpoint
    settings: PolicySettings | None
    run: Path | None
    config: RlRun | SftRun | None


def find_source(source: str | Path) -> ExportSource:
    """The policy that `source` stands for: of a run its finished model, or else its newest checkpoint.

    Raises ExportError where there is none.
    """
    folder = Path(source).absolute()
    if not folder.is_dir():
        raise ExportError("there is no such folder", where=str(source), allowed=ALLOWED)
    run = run_of(folder)
    config = read_run_config(run) if run else None
    for candidate in (folder, folder / "model"):
        if is_model_folder(candidate):
            return ExportSource(candidate, None, find_settings(candidate), run, config)
    checkpoint = folder if (folder / META).is_file() else CheckpointStore(folder / "checkpoints", keep=1).latest()
    if checkpoint is None and config is not None:
        raise ExportError(
            "the run has neither finished nor written a checkpoint",
            where=str(folder),
            cure="continue it with --resume",
        )
    if checkpoint is None:
        raise ExportError("the folder holds no policy", where=str(folder), allowed=ALLOWED)
    if config is None:
        raise ExportError(
            "the checkpoint lies outside of its run, whose settings it needs",
            where=str(checkpoint),
            cure="move it back into the run's checkpoints folder",
        )
    if checkpoint != folder:
        logger.warning("the run has not finished (it has no model/): its newest checkpoint is taken, %s", checkpoint)
    return ExportSource(None, checkpoint, settings_of_run(config), run, config)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model: a config and weights."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
