"""Motion Synergetic Decoding with transformers: several clips a batch, two rows a clip.

    sample -> clip with overlays -> PairPrompt -> decode_pairs -> caption (and the evidence of each token)

`SynergyCaptioner` stands in the role of a rollout pool, so evaluation takes it as it takes vLLM's engines;
owlcap.inference.lockstep does the same with vLLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ModelSection
from owlcap.data.prompts import encode_prompt, vision_token_ids
from owlcap.errors import ConfigError, DataError, ModelError, PromptError
from owlcap.inference.explain import EvidenceLog, TokenEvidence
from owlcap.models.load import MOTION_ARCHITECTURE, check_folder, has_motion, load_policy, load_processor
from owlcap.types import Completion, RolloutFailure, RolloutGroup, Sample, SamplingSettings
from rollout.settings import GenerationRequest, RolloutEngineSettings

if TYPE_CHECKING:
    from owlcap.inference.paired import PairPrompt
    from rollout.inputs import ClipSource


@dataclass(frozen=True, slots=True)
class SynergyCaption:
    """One clip's caption, with the evidence of its tokens where that was asked for."""

    sample: Sample
    completion: Completion  # its logprobs are the visual branch's
    num_prompt_tokens: int  # of the motion branch, the longer one
    evidence: tuple[TokenEvidence, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request whose clip was read, with its prompts."""

    request: GenerationRequest
    pair: PairPrompt
    max_new_tokens: int


def check_synergy(folder: Path) -> None:
    """Raise ModelError where a checkpoint has no motion branch."""
    check_folder(folder)
    if not has_motion(folder):
        raise ModelError(
            "Motion Synergetic Decoding compares two branches, and the checkpoint has no motion merger",
            where=str(folder),
            allowed=f"a checkpoint whose config.json names the architecture {MOTION_ARCHITECTURE}",
            cure=f"owlcap model add-motion {folder} OUT, train OUT with motion.enabled=true; or leave out --msd",
        )


def check_pair_sampling(sampling: SamplingSettings) -> None:
    """Raise ConfigError for settings that a pair cannot be decoded with."""
    if sampling.num_completions != 1 or sampling.top_p != 1.0 or sampling.top_k != -1:
        raise ConfigError(
            "a pair of branches is decoded with one caption a clip, and pruned by its own rule",
            where=str(sampling),
            allowed="num_completions=1, top_p=1, top_k=-1",
            cure="ask for one caption a clip, or leave out --msd",
        )


class SynergyCaptioner:
    """The policy with MSD in this process.

    Args:
        settings: the model and its lengths; `motion.decoding` has the options of MSD, half of `rollout.max_num_seqs`
            clips make a batch.
        clips: where frames and overlays come from; by default a VideoLoader of its own.
        explain: collect the evidence of every token.

    Raises:
        ModelError: the folder is no policy, or one without a motion merger.
    """

    def __init__(
        self, settings: RolloutEngineSettings, clips: ClipSource | None = None, *, explain: bool = False
    ) -> None:
        from owlcap.data.video import VideoLoader

        check_synergy(Path(settings.model))
        self._settings, self._explain = settings, explain
        self._clips = clips or VideoLoader(settings.video, settings.motion)
        self._model = load_policy(
            ModelSection(path=settings.model, dtype=settings.dtype, gradient_checkpointing=False), settings.device
        )
        self._processor = load_processor(settings.model, settings.video)
        self._banned = vision_token_ids(self._processor)

    def close(self) -> None:
        """End the decoder processes."""
        self._clips.close()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """One group of a single caption, or a failure, a request, in their order."""
        for result in self.captions(requests):
            if isinstance(result, SynergyCaption):
                yield RolloutGroup(result.sample, (result.completion,), num_prompt_tokens=result.num_prompt_tokens)
            else:
                yield result

    def captions(self, requests: Sequence[GenerationRequest]) -> Iterator[SynergyCaption | RolloutFailure]:
        """The same with evidence.

        Raises:
            ConfigError: settings that a pair cannot be decoded with.
        """
        for request in requests:
            check_pair_sampling(request.sampling)
        size = max(self._settings.rollout.max_num_seqs // 2, 1)
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            prepared = [self._prepare(request) for request in batch]
            decoded = iter(self._decode([one for one in prepared if isinstance(one, _Ready)]))
            for one in prepared:
                yield one if isinstance(one, RolloutFailure) else next(decoded)

    def _prepare(self, request: GenerationRequest) -> _Ready | RolloutFailure:
        from owlcap.inference.paired import PairPrompt

        sample, limit = request.sample, self._settings.max_prompt_tokens
        try:
            clip = self._clips.load(sample)
            visual, motion = (
                encode_prompt(self._processor, one, sample, limit) for one in (replace(clip, overlays=()), clip)
            )
            room = self._settings.rollout.max_model_len - len(motion.token_ids)
            if room < 1:
                raise PromptError("the prompt leaves no room for a caption", where=sample.id)
        except DataError as error:
            return RolloutFailure(sample, type(error).__name__, str(error))
        return _Ready(request, PairPrompt(visual, motion), min(request.sampling.max_new_tokens, room))

    def _decode(self, ready: Sequence[_Ready]) -> list[SynergyCaption]:
        """Captions of one batch, whose requests share their temperature."""
        from owlcap.inference.paired import SynergyProcessor, decode_pairs

        if not ready:
            return []
        logprobs: list[list[float]] = []
        log = EvidenceLog([one.request.sample for one in ready], lambda token: self._processor.tokenizer.decode(token))

        def observe(scored, chosen) -> None:
            logprobs.append(scored.visual.gather(-1, chosen[:, None])[:, 0].tolist())
            if self._explain:
                log.observe(scored, chosen)

        sampling = ready[0].request.sampling
        synergy = SynergyProcessor(
            self._settings.motion.decoding,
            temperature=sampling.temperature,
            seeds=tuple(one.request.sampling.seed or 0 for one in ready),
            observe=observe,
        )
        rows = decode_pairs(
            self._model,
            [one.pair for one in ready],
            synergy,
            [one.max_new_tokens for one in ready],
            banned_ids=self._banned,
        )
        return [
            SynergyCaption(
                one.request.sample,
                self._completion(row, one, tuple(step[number] for step in logprobs[: len(row)])),
                len(one.pair.motion.token_ids),
                log.of_pair(number, len(row)) if self._explain else (),
            )
            for number, (one, row) in enumerate(zip(ready, rows, strict=True))
        ]

    def _completion(self, row: Sequence[int], one: _Ready, logprobs: tuple[float, ...]) -> Completion:
        from owlcap.inference.paired import end_token_ids

        text = self._processor.tokenizer.decode(row, skip_special_tokens=True)
        stopped = row[-1] in end_token_ids(self._model)
        return Completion(tuple(row), logprobs, text, "stop" if stopped else "length", policy_version=0)
