"""One rank of the learner: scored groups in, optimizer updates, weights out.

    RankWork ─> prompts (object store) ─> packed micro batches ─> vision features (rl.frozen_vision)
        ─> reference logprobs (once) ─> [old logprobs (once, if there are several updates)]
        ─> for each pass and mini-batch: policy logprobs ─> share of the loss ─> backward ... ─> optimizer step

The reference policy is a frozen copy on every rank, or the policy without its LoRA adapters, or none: rl.reference.
When the vision tower and its merger are frozen and both policies come from one checkpoint, they see the same features,
and the copy keeps no tower.

Shapes: see rl.microbatch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from verl.single_controller.base.decorator import register

from owlcap.config import AlgorithmSection
from owlcap.models.logprobs import completion_logprobs
from owlcap.models.lora import without_lora
from owlcap.training.buckets import WeightDigest
from owlcap.training.features import is_frozen, open_cache
from owlcap.training.worker import ONE_TO_ALL, PER_RANK, TrainingSpec, TrainingWorker, WorkerReport
from owlcap.types import LearnerGroup
from rl.batching import MicroBatch
from rl.correction import correct
from rl.frozen_vision import load_features
from rl.kl_reward import subtract_kl
from rl.losses import BatchSize, k3, policy_loss
from rl.microbatch import LoadedBatch, fetch_prompts, load_batch
from rl.reference import Reference, reference_of
from rl.stats import RankStats
from rl.weight_sync import WeightBucket, as_buckets
from rollout.transfer import EngineActors

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from rl.nccl import NcclSender


@dataclass(frozen=True, slots=True)
class LearningSpec:
    """What a learner needs beyond a training engine."""

    algorithm: AlgorithmSection
    temperature: float  # of sampling: logits are divided by it here too
    max_new_tokens: int
    reference_model: str  # a Hugging Face folder


@dataclass(frozen=True, slots=True)
class RankMiniBatch:
    """One optimizer update's work on one rank."""

    size: BatchSize
    micro_batches: tuple[MicroBatch, ...]


@dataclass(frozen=True, slots=True)
class RankWork:
    """One step's work on one rank; `groups` by their index in the step."""

    groups: Mapping[int, LearnerGroup]
    minibatches: tuple[RankMiniBatch, ...]


class LearnerWorker(TrainingWorker):
    """A training worker whose step is a policy update."""

    def __init__(self, spec: TrainingSpec, learning: LearningSpec) -> None:
        super().__init__(spec)
        self.learning = learning
        self.reference: Qwen2_5_VLForConditionalGeneration | None = None
        self._sender: NcclSender | None = None
        kl_beta = learning.algorithm.kl_beta
        self._reference = reference_of(spec.model, spec.motion, kl_beta, learning.reference_model)

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def start(self) -> WorkerReport:
        """Load the policy, build the engine, load the reference."""
        model, spec = self.load_model(), self.spec
        self._frozen_vision = is_frozen(model)
        self._cache = open_cache(spec.features, model)  # before ZeRO-3 partitions the tower
        report = self.build_engine(model)
        if self._reference in (Reference.LANGUAGE_MODEL, Reference.COPY):
            self.reference = self._load_reference()
        return report

    @register(dispatch_mode=PER_RANK, blocking=False)
    def update(self, work: RankWork) -> RankStats:
        """All passes and optimizer updates of one step."""
        stats, started = RankStats(), time.perf_counter()
        self.engine.train()
        with clock(stats, "fetch_s"):
            loaded = self._load(work)
        everything = [batch for batches in loaded for batch in batches]
        self._prepare(everything, stats)
        if self._reference is not Reference.NONE and self.learning.algorithm.kl_in == "reward":
            subtract_kl(everything, work.groups, self.learning.algorithm)
        passes = self.learning.algorithm.num_epochs
        several = passes * len(loaded) > 1
        if several:
            with torch.no_grad(), clock(stats, "policy_s"):
                for batch in everything:
                    batch.old_BT = batch.rows(self._logprobs(batch)[0])
        for number in range(passes):
            for minibatch, batches in zip(work.minibatches, loaded, strict=True):
                self._update_once(batches, minibatch.size, stats, first_pass=number == 0)
        self.record(stats.steps, stats.num_forward_tokens, time.perf_counter() - started)
        return stats

    def weights(self) -> Iterator[WeightBucket]:
        """The present weights bucket by bucket (rank 0; the others take part and yield none).

        What an actor yields belongs to its caller, so the buckets outlive this rank.
        """
        yield from as_buckets(self.engine.gathered_state())

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def send_weights(self, engines: EngineActors, deadline_s: float) -> WeightDigest:
        """Send the present weights to these engines by NCCL (rank 0; the others take part in gathering)."""
        from rl.nccl import NcclSender  # imports vLLM

        self._sender = self._sender or NcclSender(self.engine, self.rank)
        return self._sender.send(engines, deadline_s)

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def rest(self) -> None:
        """Leave the GPU's memory to an engine, as far as DeepSpeed can; `wake` must come before anything else."""
        self.engine.offload()
        if self.reference is not None:
            nn.Module.to(self.reference, "cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def wake(self) -> None:
        """Take the memory back."""
        self.engine.reload()
        if self.reference is not None:
            nn.Module.to(self.reference, self.engine.device)

    def _load_reference(self) -> Qwen2_5_VLForConditionalGeneration:
        from owlcap.models.load import load_policy

        changes = {"path": self.learning.reference_model, "gradient_checkpointing": False, "lora": None}
        reference = load_policy(self.spec.model.model_copy(update=changes), device=str(self.engine.device))
        reference.requires_grad_(False)
        if self._reference is Reference.LANGUAGE_MODEL:
            del reference.model.visual
        return reference

    def _load(self, work: RankWork) -> list[list[LoadedBatch]]:
        """Every micro batch on the device, by mini-batch."""
        prompts = fetch_prompts(work.groups)
        config = cast("Qwen2_5_VLConfig", self.engine.module.config)
        return [
            [load_batch(micro, work.groups, prompts, config, self.engine.device) for micro in mini.micro_batches]
            for mini in work.minibatches
        ]

    def _prepare(self, batches: Sequence[LoadedBatch], stats: RankStats) -> None:
        """Vision features and reference logprobs, which no update of this step changes."""
        with torch.no_grad():
            if self._frozen_vision:
                with clock(stats, "vision_s"):
                    load_features(batches, self.engine, self._cache, stats)
            for batch in batches if self._reference is not Reference.NONE else ():
                with clock(stats, "reference_s"):
                    batch.reference_BT = batch.rows(self._reference_logprobs(batch))

    def _reference_logprobs(self, batch: LoadedBatch) -> torch.Tensor:
        """The reference's logprobs [N] of a micro batch."""
        temperature = self.learning.temperature
        if self._reference is Reference.POLICY:
            with without_lora(self.engine.module):
                return self.engine.run(partial(_policy_logprobs, batch=batch, temperature=temperature))[0]
        assert self.reference is not None
        features = batch.features if self._reference is Reference.LANGUAGE_MODEL else None
        return completion_logprobs(self.reference, batch.packed, temperature=temperature, features=features)

    def _logprobs(self, batch: LoadedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy's logprobs and entropies [N] of a micro batch."""
        return self.engine.run(partial(_policy_logprobs, batch=batch, temperature=self.learning.temperature))

    def _update_once(
        self, batches: Sequence[LoadedBatch], size: BatchSize, stats: RankStats, *, first_pass: bool
    ) -> None:
        """One optimizer update from this rank's micro batches of a mini-batch."""
        cfg = self.learning.algorithm
        for number, batch in enumerate(batches):
            with clock(stats, "policy_s"):
                logprobs_N, entropy_N = self._logprobs(batch)
                logprobs_BT = batch.rows(logprobs_N)
                old_BT = logprobs_BT.detach() if batch.old_BT is None else batch.old_BT
                weights_BT = _weights(batch, old_BT, cfg, stats if first_pass else None)
                loss = policy_loss(
                    logprobs_BT,
                    old_BT,
                    batch.reference_BT,
                    batch.advantages_B,
                    batch.mask_BT,
                    cfg=cfg,
                    size=size,
                    max_new_tokens=self.learning.max_new_tokens,
                    weights_BT=weights_BT,
                )
                self.engine.backward(loss.loss, last=number == len(batches) - 1)
            stats.loss += loss.loss.item()
            stats.policy_loss += loss.policy
            stats.kl += loss.kl
            if batch.num_tokens:
                stats.entropy += entropy_N.sum().item()
                stats.clipped += loss.clip_fraction * batch.num_tokens
                stats.num_seen += batch.num_tokens
                if first_pass:
                    _compare(batch, old_BT, stats)
        with clock(stats, "optimizer_s"):
            stats.steps.append(self.engine.step())
        stats.num_updates += 1


def _policy_logprobs(model: nn.Module, batch: LoadedBatch, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    policy = cast("Qwen2_5_VLForConditionalGeneration", model)
    return completion_logprobs(
        policy, batch.packed, temperature=temperature, with_entropy=True, features=batch.features
    )


def _weights(
    batch: LoadedBatch, learner_BT: torch.Tensor, cfg: AlgorithmSection, stats: RankStats | None
) -> torch.Tensor | None:
    """The rollout correction's weights, counted if `stats` is given; None where there is none or nothing to weigh."""
    if not cfg.rollout_correction.is_on or not batch.num_tokens:
        return None
    found = correct(learner_BT, batch.rows(batch.rollout_N), batch.mask_BT, cfg.rollout_correction)
    if stats is not None:
        stats.weight += found.weight
        stats.num_truncated += found.num_truncated
        stats.num_rejected += found.num_rejected
    return found.weights_BT


def _compare(batch: LoadedBatch, learner_BT: torch.Tensor, stats: RankStats) -> None:
    """Count a micro batch, and how far the sampler's logprobs are from the learner's before any update.

    In double precision: two engines that agree to 1e-6 have a k3 of 1e-12, which is lost in exp(x) - x - 1 in fp32.
    """
    rollout_BT, learner_BT = batch.rows(batch.rollout_N).double(), learner_BT.double()
    stats.num_sequences += len(batch.packed.lengths)
    stats.num_tokens += batch.num_tokens
    stats.num_forward_tokens += batch.packed.num_tokens
    stats.mismatch_kl += (k3(rollout_BT, learner_BT) * batch.mask_BT).sum().item()
    stats.mismatch_max = max(stats.mismatch_max, (rollout_BT - learner_BT).abs().max().item())


@contextmanager
def clock(stats: RankStats, name: str) -> Iterator[None]:
    """Add the wall time of a block to `stats.<name>`."""
    started = time.perf_counter()
    yield
    setattr(stats, name, getattr(stats, name) + time.perf_counter() - started)
