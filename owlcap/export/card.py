"""The model card (README.md) of an exported folder: data, rewards, figures, versions, and how to serve it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from owlcap.config import RlRun, Run
from owlcap.evaluation.report import load_report
from owlcap.evaluation.table import render_table
from owlcap.export.check import CheckFigures
from owlcap.export.serve import VIDEO_URL, chat_request
from owlcap.export.source import ExportSource
from owlcap.inference.settings import PolicySettings

HERE = "PATH/TO/THIS/FOLDER"  # a card travels with its folder: it names no place on this machine
STEP_FILE = re.compile(r"step_\d+\.json")


def render_card(
    name: str, source: ExportSource, settings: PolicySettings, figures: CheckFigures, serve_line: str, versions: dict
) -> str:
    """The card's Markdown.

    Args:
        serve_line: with HERE in place of the folder.
        versions: of this export (`owlcap.runs.versions`).
    """
    sections = [
        _front_matter(name),
        f"# {name}\n\nA video captioner of the Qwen2.5-VL architecture, exported by owlcap.",
        _training(source.config),
        _evaluation(source.run),
        _use(name, settings, serve_line),
        _check(figures),
        _versions(source.run, versions),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(name: str) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: video-text-to-text"]
    return "\n".join([*lines, "tags: [owlcap, video-captioning, qwen2_5_vl]", f"model_name: {json.dumps(name)}", "---"])


def _training(config: Run | None) -> str:
    """What the run's config says of data, objective and rewards."""
    if config is None:
        return ""
    lines = [
        f"Run `{config.name}` ({'GRPO' if isinstance(config, RlRun) else 'SFT'}), seed {config.seed}.",
        f"Started from `{_portable(config.model.path)}`; data `{_portable(config.data.train)}`.",
    ]
    if isinstance(config, RlRun):
        terms = ", ".join(f"{term.name} (weight {term.weight:g})" for term in config.rewards.terms)
        cser, algorithm = config.rewards.cser, config.algorithm
        lines += [
            f"Rewards: {terms}. CSER: combine {cser.combine}, match {cser.match}, tag weights motion "
            f"{cser.motion_weight:g} and detail {cser.detail_weight:g}, judge {_judge(config)}.",
            f"Algorithm: advantage {algorithm.advantage}, policy loss {algorithm.policy_loss}, KL beta "
            f"{algorithm.kl_beta:g} ({algorithm.kl_estimator}), {config.rollout.group_size} rollouts of each of "
            f"{config.rollout.prompts_per_step} prompts a step, temperature {config.rollout.temperature:g}.",
        ]
    lines.append(
        f"Optimizer: learning rate {config.optimizer.lr:g}, {config.optimizer.schedule}, weights in "
        f"{config.model.dtype}, ZeRO stage {config.deepspeed.zero_stage}."
    )
    return "## Training\n\n" + "\n".join(f"- {line}" for line in lines)


def _judge(config: RlRun) -> str:
    judge = config.rewards.judge
    return judge.model if judge.kind == "openai" else judge.kind


def _portable(path: str) -> str:
    """A path as the config gives it; of an absolute one only its last two parts."""
    return "/".join(Path(path).parts[-2:]) if Path(path).is_absolute() else path


def _evaluation(run: Path | None) -> str:
    """First and last evaluation of the run, side by side."""
    reports = [load_report(path) for path in _greedy_evaluations(run)] if run else []
    if not reports:
        return ""
    table = render_table(reports[0], reports[-1]) if len(reports) > 1 else render_table(reports[0])
    return f"## Held-out captions\n\nMeans with standard errors over clips.\n\n```\n{table}\n```"


def _greedy_evaluations(run: Path) -> list[Path]:
    """The run's greedy evaluations by step; sampled ones have a suffix after the step."""
    return sorted(path for path in (run / "evaluations").glob("step_*.json") if STEP_FILE.fullmatch(path.name))


def _use(name: str, settings: PolicySettings, serve_line: str) -> str:
    video = settings.video
    return (
        f"## Use\n\nVideos are sampled at {video.fps:g} frames a second, {video.min_frames} to {video.max_frames} "
        f"frames; the question is: {settings.prompt}\n\n"
        f"```\nowlcap caption {HERE} VIDEO.mp4\n{serve_line}\n```\n\n"
        "Ask the server with the parts of the message in this order, `POST /v1/chat/completions`:\n\n"
        f"```json\n{json.dumps(chat_request(settings, name, VIDEO_URL), ensure_ascii=False)}\n```\n\n"
        "Positions of text after a video follow the original Qwen2.5-VL rule (as vLLM does); `generate` of "
        "transformers 5 places such text differently, and gives other captions."
    )


def _check(figures: CheckFigures) -> str:
    return (
        "## Check\n\nThe folder was loaded again and compared token by token over "
        f"{figures.num_tokens} caption tokens of a video prompt ({figures.dtype}):\n\n"
        f"- transformers, this folder against its source: largest logprob difference {figures.source_max:.2e}\n"
        "- vLLM against transformers, both on this folder: largest "
        f"{figures.vllm_max:.2e}, mean {figures.vllm_mean:.2e}"
    )


def _versions(run: Path | None, versions: dict) -> str:
    """Commit and packages of the export, and of the run where they differ."""
    packages = ", ".join(f"{name} {version}" for name, version in versions["packages"].items() if version)
    lines = [f"- exported with commit {versions['git_commit'] or 'unknown'}; {packages}"]
    recorded = run / "versions.json" if run else None
    if recorded and recorded.is_file():
        lines.append(f"- trained with commit {json.loads(recorded.read_text())['git_commit'] or 'unknown'}")
    return "## Versions\n\n" + "\n".join(lines)
