"""What to export: a run directory, one of its checkpoints, or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from owlcap.config import RlRun, SftRun
from owlcap.errors import ExportError
from owlcap.inference.settings import PolicySettings, find_settings, read_run_config, run_of

ALLOWED = "a run directory, one of its checkpoints/step-N folders, or a Hugging Face folder (config.json, weights)"


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A policy to export, and the run it comes from where there is one."""

    model: Path  # Hugging Face folder
    settings: PolicySettings | None
    run: Path | None
    config: RlRun | SftRun | None


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model: a config and weights."""
    weights = (*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"))
    return (folder / "config.json").is_file() and bool(weights)


def find_source(source: str | Path) -> ExportSource:
    """The model that `source` stands for. Raises ExportError where there is none."""
    folder = Path(source).absolute()
    if not folder.is_dir():
        raise ExportError("there is no such folder", where=str(source), allowed=ALLOWED)
    run = run_of(folder)
    model = _model_in(folder)
    return ExportSource(model, find_settings(model), run, read_run_config(run) if run else None)


def _model_in(folder: Path) -> Path:
    """The folder itself, its `model`, or that of the run's latest checkpoint."""
    for candidate in (folder, folder / "model"):
        if is_model_folder(candidate):
            return candidate
    checkpoints = folder / "checkpoints"
    saved = [step / "model" for step in checkpoints.glob("step_*") if is_model_folder(step / "model")]
    if saved:
        return max(saved, key=lambda model: int(model.parent.name.removeprefix("step_")))
    if checkpoints.is_dir():
        raise ExportError(
            "the run has neither finished nor saved a model with a checkpoint",
            where=str(folder),
            cure="continue it with --resume until it writes its model folder",
        )
    raise ExportError("the folder holds no model", where=str(folder), allowed=ALLOWED)
