"""What a policy folder cannot say in Hugging Face's files: how its videos are sampled and what it is asked.

Exported folders carry it in `owlcap.json`; a folder inside a run directory has the run's config.yaml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from owlcap.config import MotionSection, RlRun, Run, SftRun, VideoSection
from owlcap.errors import ConfigError

SETTINGS_FILE = "owlcap.json"
DEFAULT_PROMPT = "Describe the video in detail."
DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Video sampling, question and answer length that a policy was trained with, and its name when served."""

    video: VideoSection = field(default_factory=VideoSection)
    prompt: str = DEFAULT_PROMPT
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    name: str | None = None  # None: its folder's
    motion: MotionSection = field(default_factory=MotionSection)


def write_settings(folder: Path, settings: PolicySettings) -> None:
    """Write `owlcap.json` into a model folder that is being made."""
    values = {
        "video": settings.video.model_dump(mode="json"),
        "prompt": settings.prompt,
        "max_new_tokens": settings.max_new_tokens,
        "name": settings.name,
        "motion": settings.motion.model_dump(mode="json"),
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def find_settings(folder: str | Path) -> PolicySettings | None:
    """Settings of a model folder: its own `owlcap.json`, else its run's; None where neither is there.

    Raises ConfigError for a file that is there and cannot be read.
    """
    path = Path(folder).absolute() / SETTINGS_FILE
    if not path.exists():
        run = run_of(folder)
        return settings_of_run(read_run_config(run)) if run else None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return PolicySettings(
            VideoSection.model_validate(values["video"]),
            str(values["prompt"]),
            int(values["max_new_tokens"]),
            values["name"],
            MotionSection.model_validate(values.get("motion", {})),  # folders of earlier versions have none
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the policy's settings cannot be read: {error}", where=str(path), cure="export the policy again"
        ) from error


def run_of(folder: str | Path) -> Path | None:
    """The run directory that a model or checkpoint folder lies in, or None."""
    folder = Path(folder).absolute()
    for parent in (folder, *folder.parents[:3]):  # run, run/model, run/checkpoints/step, run/checkpoints/step/model
        if (parent / "config.yaml").is_file() and (parent / "checkpoints").is_dir():
            return parent
    return None


def read_run_config(run: Path) -> RlRun | SftRun:
    """The resolved settings that a run directory keeps. Raises ConfigError for a file of another version."""
    path = run / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return (SftRun if values["kind"] == "sft" else RlRun).model_validate(values)
    except (yaml.YAMLError, ValidationError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the run's settings cannot be read: {error}",
            where=str(path),
            cure="use the version of owlcap that made the run (its versions.json names it)",
        ) from error


def settings_of_run(config: Run) -> PolicySettings:
    """Settings of the policy that a run trained; the prompt is its data's where the config has none."""
    max_new_tokens = config.rollout.max_new_tokens if isinstance(config, RlRun) else DEFAULT_MAX_NEW_TOKENS
    prompt = config.data.prompt or _first_prompt(config)
    return PolicySettings(config.video, prompt, max_new_tokens, motion=config.motion)


def _first_prompt(config: Run) -> str:
    """The first training row's question, or the default where the data is no longer there."""
    from owlcap.data.rows import read_rows

    if not Path(config.data.train).is_file():
        return DEFAULT_PROMPT
    return read_rows(config.data.train, config.data)[0].prompt
