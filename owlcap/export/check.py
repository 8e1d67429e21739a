"""Proof that an exported folder is the policy it was made from: logprobs of the same tokens, computed three ways.

    folder  -> vLLM          draws captions of a probe clip, with their logprobs      \\
    folder  -> transformers  logprobs of those captions, positions by owlcap.models    } compared token by token
    source  -> transformers  the same for the folder it was made from                 /

vLLM and transformers run in a process each: memory is given back, and nothing of one can leak into the other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from owlcap.config import ModelSection
from owlcap.errors import ExportError, first_line
from owlcap.inference.engine import Dtype, draw_in_process, engine_settings
from owlcap.inference.process import call_in_process
from owlcap.inference.settings import PolicySettings
from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings
from rollout.settings import GenerationRequest

PROBE_DEADLINE_S = 3600.0  # a large checkpoint may come from slow storage
NUM_COMPLETIONS = 4
MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest and mean |logprob difference| that still count as the same policy."""

    source_max: float  # transformers against transformers
    vllm_max: float  # vLLM against transformers
    vllm_mean: float


# bf16 keeps 8 bits: two correct implementations that round at other places differ by about this much a token.
TOLERANCES: dict[Dtype, Tolerance] = {
    "fp32": Tolerance(source_max=1e-5, vllm_max=1e-4, vllm_mean=1e-4),
    "bf16": Tolerance(source_max=1e-5, vllm_max=0.5, vllm_mean=0.05),
}


@dataclass(frozen=True, slots=True)
class CheckFigures:
    """What the comparison found. `caption` is the folder's greedy caption of the probe clip."""

    dtype: Dtype
    num_tokens: int
    source_max: float
    vllm_max: float
    vllm_mean: float
    caption: str


Logprobs = tuple[tuple[float, ...], ...]  # one tuple a completion


def check_folder(folder: Path, source: Path, dtype: Dtype, sample: Sample, settings: PolicySettings) -> CheckFigures:
    """Compare `folder` with `source` and with itself under vLLM.

    Raises ExportError with the figures where they differ by more than TOLERANCES, and with the cause where a
    folder cannot be used at all.
    """
    from owlcap.data.video import VideoLoader

    with VideoLoader(settings.video, settings.motion) as loader:
        clip = loader.load(sample)
    engine = engine_settings(folder, settings, dtype=dtype)
    greedy, drawn = _requests(sample, min(MAX_NEW_TOKENS, engine.rollout.max_new_tokens))
    groups = _usable(draw_in_process(engine, (greedy, drawn), {sample.id: clip}), folder)
    environment = {"OMP_NUM_THREADS": str(engine.threads)}
    ours, theirs = call_in_process(policy_logprobs, environment, PROBE_DEADLINE_S, (folder, source), dtype, groups)
    vllms = tuple(completion.logprobs for group in groups for completion in group.completions)
    figures = compare(dtype, vllms, ours, theirs, groups[0].completions[0].text.strip())
    judge_figures(figures, folder, source)
    return figures


def _requests(sample: Sample, max_new_tokens: int) -> tuple[GenerationRequest, GenerationRequest]:
    """One greedy caption, and a few drawn at temperature 1 so that unlikely tokens are compared too."""
    greedy = SamplingSettings(temperature=0.0, max_new_tokens=max_new_tokens)
    drawn = SamplingSettings(num_completions=NUM_COMPLETIONS, max_new_tokens=max_new_tokens, seed=0)
    return GenerationRequest(sample, greedy), GenerationRequest(sample, drawn)


def _usable(results: Sequence[RolloutGroup | RolloutFailure], folder: Path) -> tuple[RolloutGroup, ...]:
    """The groups, or ExportError for a probe clip that the policy cannot take."""
    for result in results:
        if isinstance(result, RolloutFailure):
            reason = first_line(result.reason)
            raise ExportError(
                f"the policy cannot take the probe clip: {reason}",
                where=str(folder),
                cure="give the video settings that it was trained with",
            )
    return tuple(result for result in results if isinstance(result, RolloutGroup))


def policy_logprobs(folders: Sequence[Path], dtype: Dtype, groups: Sequence[RolloutGroup]) -> tuple[Logprobs, ...]:
    """Logprobs of every completion's tokens under each folder's weights in transformers, one folder at a time."""
    return tuple(_folder_logprobs(folder, dtype, groups) for folder in folders)


def _folder_logprobs(folder: Path, dtype: Dtype, groups: Sequence[RolloutGroup]) -> Logprobs:
    import torch

    from owlcap.models.load import load_policy
    from owlcap.models.logprobs import completion_logprobs
    from owlcap.models.packing import pack_group

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_policy(ModelSection(path=str(folder), dtype=dtype, gradient_checkpointing=False), device=device)
    logprobs: list[tuple[float, ...]] = []
    with torch.no_grad():
        for group in groups:
            completions = [completion.token_ids for completion in group.completions]
            packed = pack_group(group.prompt, completions, model.config).to(device)
            values = completion_logprobs(model, packed).float().cpu()
            logprobs += [tuple(part.tolist()) for part in values.split([len(ids) for ids in completions])]
    return tuple(logprobs)


def compare(dtype: Dtype, vllms: Logprobs, ours: Logprobs, theirs: Logprobs, caption: str) -> CheckFigures:
    """Differences token by token.

    Args:
        vllms: the exported folder under vLLM.
        ours: the exported folder under transformers.
        theirs: the source folder under transformers.
    """
    between_folders, between_engines = _differences(ours, theirs), _differences(vllms, ours)
    return CheckFigures(
        dtype,
        len(between_engines),
        _largest(between_folders),
        _largest(between_engines),
        statistics.fmean(between_engines),
        caption,
    )


def judge_figures(figures: CheckFigures, folder: Path, source: Path) -> None:
    """Raise ExportError where a figure is beyond its tolerance. NaN is beyond every tolerance."""
    limits = TOLERANCES[figures.dtype]
    compared = f"over {figures.num_tokens} caption tokens in {figures.dtype}"
    if not figures.source_max <= limits.source_max:
        raise ExportError(
            f"the exported weights are not the source's: logprobs differ by up to {figures.source_max:.3g} {compared}",
            where=f"{folder}, made from {source}",
            allowed=f"{limits.source_max:g}",
            cure="export again; if it repeats, the source folder was changed during the export or the disk is faulty",
        )
    if not (figures.vllm_max <= limits.vllm_max and figures.vllm_mean <= limits.vllm_mean):
        raise ExportError(
            f"vLLM does not reproduce the policy: logprobs differ by up to {figures.vllm_max:.3g} and by "
            f"{figures.vllm_mean:.3g} on average {compared}",
            where=str(folder),
            allowed=f"at most {limits.vllm_max:g}, on average {limits.vllm_mean:g}",
            cure="install the vLLM version of requirements/, and check with `owlcap doctor`",
        )


def _differences(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> list[float]:
    """|first - second| for every token."""
    return [abs(a - b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)]


def _largest(differences: Sequence[float]) -> float:
    """The largest value; NaN where there is one (`max` may pass over it)."""
    return math.nan if any(math.isnan(value) for value in differences) else max(differences)
