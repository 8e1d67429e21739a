"""`owlcap caption --msd`: captions by both branches, of one video or of the rows of a data file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from owlcap.config import MotionSection, VideoSection
from owlcap.config_motion import DecodingSection
from owlcap.errors import ConfigError
from owlcap.inference.engine import engine_settings
from owlcap.inference.overlays import pictures
from owlcap.inference.settings import PolicySettings, find_settings
from owlcap.inference.synergy import SynergyCaption, SynergyCaptioner, check_synergy
from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings
from rollout.settings import GenerationRequest, RolloutEngineSettings

Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How pairs are decoded; None takes what is kept beside the policy."""

    decoding: DecodingSection | None = None
    temperature: float = 0.0  # 0: greedy
    seed: int = 0  # of the first clip; each next one takes the next
    max_new_tokens: int | None = None
    video: VideoSection | None = None
    motion: MotionSection | None = None
    engine: Engine = "transformers"
    explain: bool = False

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}", allowed="0 (greedy) or more")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}", allowed="1 or more")
        if self.explain and self.engine == "vllm":
            raise ConfigError("vLLM keeps no evidence of its tokens", cure="explain with the engine transformers")


def caption_pairs(
    model: str | Path,
    source: str | Path,
    *,
    overlays: str | Path | None = None,
    prompt: str | None = None,
    options: PairOptions | None = None,
) -> Iterator[SynergyCaption | RolloutFailure]:
    """Captions of a video, or of the clips of a data file, by Motion Synergetic Decoding.

    Args:
        model: a Hugging Face folder with a motion merger, or a name on the Hub.
        source: a video file, or a data file (.jsonl) whose clips are decoded in batches.
        overlays: a folder with one video's overlays, in the order of their names. Clips without overlays get them
            from the cache of `owlcap motion extract`, or made now, with the motion settings kept beside the policy.
        prompt: asked instead of the row's question, or of the one that the policy was trained with.

    Raises:
        ConfigError: options that contradict each other.
        DataError: the data file or the overlays' folder cannot be read.
        ModelError: no policy, one without a motion merger, or pose models that are not there.
        RolloutError: vLLM's engine did not start or answer.
    """
    from owlcap.models.load import model_folder

    options = options or PairOptions()
    folder = model_folder(model)
    check_synergy(folder)
    known = find_settings(folder) or PolicySettings()
    samples = read_samples(source, known, overlays, prompt)
    settings = pair_settings(folder, known, options)
    sampling = SamplingSettings(temperature=options.temperature, max_new_tokens=settings.rollout.max_new_tokens)
    requests = [GenerationRequest(s, replace(sampling, seed=options.seed + i), False) for i, s in enumerate(samples)]
    yield from decode_requests(settings, requests, options.engine, explain=options.explain)


def pair_settings(folder: Path, known: PolicySettings, options: PairOptions) -> RolloutEngineSettings:
    """The engine for a policy folder, with the motion pathway on and overlays needed."""
    own = options.motion or known.motion
    decoding = options.decoding or own.decoding
    motion = own.model_copy(update={"enabled": True, "missing": "error", "decoding": decoding})
    settings = replace(known, motion=motion, video=options.video or known.video)
    return engine_settings(folder, settings, max_new_tokens=options.max_new_tokens)


def read_samples(
    source: str | Path, known: PolicySettings, overlays: str | Path | None, prompt: str | None
) -> list[Sample]:
    """The clips to caption, with their questions."""
    from owlcap.data.rows import read_rows

    if Path(source).suffix != ".jsonl":
        files = pictures(Path(overlays)) if overlays is not None else ()
        return [Sample("video", str(source), prompt or known.prompt, "", "", overlays=files)]
    if overlays is not None:
        raise ConfigError("a folder of overlays belongs to one video", where=str(source), cure="leave out --overlays")
    return [replace(sample, prompt=prompt or sample.prompt) for sample in read_rows(source)]


def with_overlays(
    requests: Sequence[GenerationRequest], motion: MotionSection
) -> list[GenerationRequest | RolloutFailure]:
    """Requests whose clips have overlays: the row's own, else from the cache, else made now; a failure else."""
    bare = [request.sample for request in requests if not request.sample.overlays]
    if not bare:
        return list(requests)
    from motion.extract import Extracted, MotionExtractor

    with MotionExtractor(motion) as extractor:
        made = iter(extractor.extract(bare))
    answers: list[GenerationRequest | RolloutFailure] = []
    for request in requests:
        result = None if request.sample.overlays else next(made)
        if result is None:
            answers.append(request)
        elif isinstance(result, Extracted):
            answers.append(replace(request, sample=replace(request.sample, overlays=tuple(map(str, result.overlays)))))
        else:
            answers.append(RolloutFailure(request.sample, result.error, result.reason))
    return answers


def decode_requests(
    settings: RolloutEngineSettings, requests: Sequence[GenerationRequest], engine: Engine, *, explain: bool = False
) -> Iterator[SynergyCaption | RolloutFailure]:
    """One result a request, in order, after its overlays were found or made."""
    ready = with_overlays(requests, settings.motion)
    usable = [one for one in ready if isinstance(one, GenerationRequest)]
    results = _in_vllm(settings, usable) if engine == "vllm" else _in_transformers(settings, usable, explain)
    for one in ready:
        yield one if isinstance(one, RolloutFailure) else next(results)


class PairSource:
    """Captions by both branches, in the role of a rollout pool: what evaluation takes."""

    def __init__(self, settings: RolloutEngineSettings, engine: Engine = "transformers") -> None:
        self._settings = settings
        self._engine: Engine = engine

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """One group of a single caption, or a failure, a request, in their order."""
        for result in decode_requests(self._settings, requests, self._engine):
            if isinstance(result, SynergyCaption):
                yield RolloutGroup(result.sample, (result.completion,), num_prompt_tokens=result.num_prompt_tokens)
            else:
                yield result


def _in_transformers(
    settings: RolloutEngineSettings, requests: Sequence[GenerationRequest], explain: bool
) -> Iterator[SynergyCaption | RolloutFailure]:
    if requests:
        captioner = SynergyCaptioner(settings, explain=explain)
        try:
            yield from captioner.captions(requests)
        finally:
            captioner.close()


def _in_vllm(
    settings: RolloutEngineSettings, requests: Sequence[GenerationRequest]
) -> Iterator[SynergyCaption | RolloutFailure]:
    from owlcap.inference.lockstep import draw_pairs_in_process

    for result in draw_pairs_in_process(settings, requests) if requests else ():
        if isinstance(result, RolloutGroup):
            yield SynergyCaption(result.sample, result.completions[0], result.num_prompt_tokens)
        else:
            yield result
