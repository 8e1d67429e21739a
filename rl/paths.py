"""Actors may not run in the driver's folder: paths in a run's settings become absolute before they travel."""

from __future__ import annotations

from pathlib import Path

from owlcap.config import RewardTerm, RlRun


def absolute(cfg: RlRun) -> RlRun:
    """The same run with absolute paths of models and of rewards given as FILE:NAME. A Hub name stays one."""
    terms = tuple(_reward(term) for term in cfg.rewards.terms)
    return cfg.model_copy(
        update={
            "model": cfg.model.model_copy(update={"path": _model(cfg.model.path)}),
            "reference_model": cfg.reference_model and _model(cfg.reference_model),
            "rewards": cfg.rewards.model_copy(update={"terms": terms}),
        }
    )


def _model(path: str) -> str:
    return str(Path(path).absolute()) if Path(path).is_dir() else path


def _reward(term: RewardTerm) -> RewardTerm:
    file, colon, name = term.name.rpartition(":")
    if not colon or not file.endswith(".py"):
        return term
    return term.model_copy(update={"name": f"{Path(file).absolute()}:{name}"})
