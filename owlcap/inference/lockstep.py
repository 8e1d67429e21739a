"""Motion Synergetic Decoding with vLLM: both rows of a pair take every step together, or the pair fails and says so.

    pairs that fit one wave -> add both rows of each -> step until all are done -> compare the rows -> next wave

vLLM keeps rows together only if a pair is submitted whole, all prompts are taken in by one step, there is room for
every row's keys and values, and rows stop by the same rules; otherwise they drift apart silently. `plan_waves` holds to
that at submission; owlcap.inference.pair_processor watches every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.data.prompts import vision_token_ids
from owlcap.errors import DataError, PromptError, RolloutError
from owlcap.inference.engine import START_AND_ANSWER_S, DecodedClips
from owlcap.inference.process import call_in_process
from owlcap.inference.synergy import check_pair_sampling, check_synergy
from owlcap.models.load import load_processor
from owlcap.types import RolloutFailure, RolloutGroup, Sample, VideoClip
from rollout.environment import engine_environment
from rollout.settings import GenerationRequest, RolloutEngineSettings

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

    from owlcap.inference.pair_processor import Branch
    from rollout.inputs import ClipSource, PreparedRequest

PROCESSOR = "owlcap.inference.pair_processor:PairLogitsProcessor"
ABSENT, OUT_OF_STEP = "<|vision_pad|>", "<|image_pad|>"  # tokens that a caption never holds: they tell of a failure
REASONS = {ABSENT: "its other branch left the batch", OUT_OF_STEP: "its branches have different numbers of tokens"}

Result = RolloutGroup | RolloutFailure


@dataclass(frozen=True, slots=True)
class PairSize:
    """Tokens of one pair."""

    visual: int  # of the visual branch's prompt
    motion: int
    max_new: int  # of the caption


@dataclass(frozen=True, slots=True)
class EngineRoom:
    """What one step and the cache of an engine hold."""

    max_num_seqs: int
    max_num_batched_tokens: int
    block_tokens: int  # of one block of keys and values
    num_blocks: int

    def blocks(self, size: PairSize) -> int:
        """Blocks that both rows of a pair take when they are as long as they may get."""
        return sum(math.ceil((prompt + size.max_new) / self.block_tokens) for prompt in (size.visual, size.motion))


def plan_waves(sizes: Sequence[PairSize], room: EngineRoom) -> list[list[int]]:
    """Which pairs run together, in their order: indices of each wave.

    Raises:
        RolloutError: a pair does not fit the engine even alone (see `why_too_large`).
    """
    waves: list[list[int]] = []
    tokens = blocks = 0
    for index, size in enumerate(sizes):
        if reason := why_too_large(size, room):
            raise RolloutError(reason)
        tokens, blocks = tokens + size.visual + size.motion, blocks + room.blocks(size)
        fits = tokens <= room.max_num_batched_tokens and blocks <= room.num_blocks
        if not waves or not fits or 2 * (len(waves[-1]) + 1) > room.max_num_seqs:
            waves.append([])
            tokens, blocks = size.visual + size.motion, room.blocks(size)
        waves[-1].append(index)
    return waves


def why_too_large(size: PairSize, room: EngineRoom) -> str | None:
    """Why a pair cannot run in an engine even alone, or None where it can."""
    if room.max_num_seqs < 2:
        return f"a pair takes two sequences, and max_num_seqs is {room.max_num_seqs}"
    if size.visual + size.motion > room.max_num_batched_tokens:
        return (
            f"the prompts of a pair ({size.visual} and {size.motion} tokens) do not fit one engine step "
            f"({room.max_num_batched_tokens})"
        )
    if room.blocks(size) > room.num_blocks:
        return f"a pair takes {room.blocks(size)} blocks of keys and values, and the engine has {room.num_blocks}"
    return None


@dataclass(frozen=True, slots=True)
class _Pair:
    """A request with both prompts ready for the engine."""

    request: GenerationRequest
    visual: PreparedRequest
    motion: PreparedRequest
    size: PairSize


class LockstepEngine:
    """A vLLM engine that decodes pairs. One engine a process, whose environment must be an engine's.

    Args:
        settings: as for rollout.engine.VllmEngine; `motion.decoding` has the options of MSD.
        clips: where frames and overlays come from; by default a VideoLoader of its own.

    Raises:
        ModelError: the folder is no policy, or one without a motion merger.
    """

    def __init__(self, settings: RolloutEngineSettings, clips: ClipSource | None = None) -> None:
        from owlcap.data.video import VideoLoader
        from rollout.inputs import RequestPreparer
        from rollout.startup import start_vllm

        check_synergy(Path(settings.model))
        self._settings = settings
        self._clips = clips or VideoLoader(settings.video, settings.motion)
        self._llm = start_vllm(replace(settings, logits_processors=(PROCESSOR,)))
        self._vllm = self._llm.llm_engine
        processor = load_processor(settings.model, settings.video)
        self._banned, self._tokenizer = vision_token_ids(processor), processor.tokenizer
        vocabulary = processor.tokenizer.get_vocab()
        self._failed = {vocabulary[token]: reason for token, reason in REASONS.items()}
        self._signs = (vocabulary[ABSENT], vocabulary[OUT_OF_STEP])
        self._preparer = RequestPreparer(self._vllm.renderer, processor, self._clips, settings.max_prompt_tokens, 1)
        config = self._vllm.vllm_config
        self.room = EngineRoom(
            config.scheduler_config.max_num_seqs,
            config.scheduler_config.max_num_batched_tokens,
            config.cache_config.block_size,
            (config.cache_config.num_gpu_blocks or 0) - 1,  # vLLM keeps one for itself
        )

    def close(self) -> None:
        """End the decoder processes and the engine."""
        self._preparer.close()
        self._vllm.engine_core.shutdown()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Result]:
        """One group of a single caption, or a failure, a request, in their order; a wave of pairs at a time.

        Raises:
            ConfigError: settings that a pair cannot be decoded with.
        """
        for request in requests:
            check_pair_sampling(request.sampling)
        waiting: list[_Pair | RolloutFailure] = []
        for request in requests:
            waiting.append(self.prepare(request))
            pairs = [one for one in waiting if isinstance(one, _Pair)]
            if len(plan_waves([pair.size for pair in pairs], self.room)) > 1:  # the last one opened a wave
                yield from self._run(waiting[:-1])
                waiting = waiting[-1:]
        yield from self._run(waiting)

    def prepare(self, request: GenerationRequest) -> _Pair | RolloutFailure:
        """Read the clip once and process it for both branches."""
        try:
            clip = self._clips.load(request.sample)
            visual = self._preparer.process(request, replace(clip, overlays=()))
            motion = self._preparer.process(request, clip)
            lengths = len(visual.prompt.token_ids), len(motion.prompt.token_ids)
            room = self._settings.rollout.max_model_len - max(lengths)
            size = PairSize(*lengths, min(request.sampling.max_new_tokens, room))
            if reason := why_too_large(size, self.room):
                raise PromptError(reason, where=request.sample.id, cure="raise rollout.max_num_seqs, or the KV cache")
        except DataError as error:
            return RolloutFailure(request.sample, type(error).__name__, str(error))
        return _Pair(request, visual, motion, size)

    def _run(self, wave: Sequence[_Pair | RolloutFailure]) -> Iterator[Result]:
        """Decode the pairs of one wave; results in the order of `wave`."""
        pairs = {str(number): one for number, one in enumerate(wave) if isinstance(one, _Pair)}
        self.submit(pairs)
        rows: dict[str, RequestOutput] = {}
        while self._vllm.has_unfinished_requests():
            rows |= {output.request_id: output for output in self._vllm.step()}  # type: ignore[misc]
        for number, one in enumerate(wave):
            yield one if isinstance(one, RolloutFailure) else self._result(one, rows, str(number))

    def submit(self, pairs: Mapping[str, _Pair]) -> None:
        """Give whole pairs to vLLM, under the ids `<name>.visual` and `<name>.motion`."""
        for number, (name, pair) in enumerate(pairs.items()):
            self._vllm.add_request(f"{name}.visual", pair.visual.engine_input, self.row_params(pair, number, "visual"))
            self._vllm.add_request(f"{name}.motion", pair.motion.engine_input, self.row_params(pair, number, "motion"))

    def row_params(self, pair: _Pair, number: int, branch: Branch) -> SamplingParams:
        """vLLM's parameters of one row: greedy (draws are in the scores), equal limits and stops in both rows."""
        from owlcap.inference.pair_processor import PairSettings, row_arguments
        from rollout.sampling import sampling_params

        sampling = pair.request.sampling
        settings = PairSettings(self._settings.motion.decoding, sampling.temperature, *self._signs)
        params = sampling_params(replace(sampling, temperature=0.0, seed=None), self._banned, pair.size.max_new)
        params.stop_token_ids = list(self._signs)
        params.extra_args = row_arguments(number, branch, sampling.seed or 0, settings)
        return params

    def _result(self, pair: _Pair, rows: Mapping[str, RequestOutput], name: str) -> Result:
        """The caption, if both rows came to the same end."""
        from rollout.sampling import completions_of

        sample = pair.request.sample
        visual, motion = (rows[f"{name}.{branch}"].outputs[0] for branch in ("visual", "motion"))
        for row in (visual, motion):
            if row.token_ids and row.token_ids[-1] in self._failed:
                return _failure(sample, self._failed[row.token_ids[-1]])
        if list(visual.token_ids) != list(motion.token_ids):
            return _failure(sample, "its branches ended with different tokens")
        completions = completions_of([visual], lambda ids: self._tokenizer.batch_decode(ids, True), version=0)
        return RolloutGroup(sample, completions, num_prompt_tokens=pair.size.motion)


def _failure(sample: Sample, reason: str) -> RolloutFailure:
    return RolloutFailure(sample, "RolloutError", f"the pair fell out of step in vLLM: {reason}")


def draw_pairs_in_process(
    settings: RolloutEngineSettings,
    requests: Sequence[GenerationRequest],
    clips: Mapping[str, VideoClip] | None = None,
    deadline_s: float = START_AND_ANSWER_S,
) -> list[Result]:
    """Results of `requests` in their order, from an engine started for them in a process of its own.

    Args:
        clips: frames and overlays by sample id; None: the engine reads them.
    """
    environment = engine_environment(settings)
    return call_in_process(draw_pairs, environment, deadline_s, settings, tuple(requests), clips and dict(clips))


def draw_pairs(
    settings: RolloutEngineSettings, requests: Sequence[GenerationRequest], clips: Mapping[str, VideoClip] | None
) -> list[Result]:
    """`draw_pairs_in_process` without the process: the environment must be an engine's."""
    engine = LockstepEngine(settings, DecodedClips(clips) if clips is not None else None)
    try:
        return list(engine.generate(requests))
    finally:
        engine.close()
