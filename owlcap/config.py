"""The schema of a run: every setting, its type, its default, its unit.

A run's YAML is composed by `owlcap.config_io` and becomes one frozen `SftRun` or `RlRun`; unknown
keys are errors. Counts are `num_x`, seconds end in `_s`, sizes in `_gib`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from owlcap.config_cluster import ClusterSection
from owlcap.config_motion import MotionSection
from owlcap.config_rewards import (
    CacheSection,
    CserSection,
    JudgeSection,
    MonitorsSection,
    RewardsSection,
    RewardTerm,
    Section,
)

__all__ = ["CacheSection", "CserSection", "JudgeSection", "MonitorsSection", "RewardTerm", "RewardsSection", "Section"]
TokenTest = Literal["token_k1", "token_k2", "token_k3"]
CaptionTest = Literal["seq_sum_k1", "seq_sum_k2", "seq_sum_k3", "seq_mean_k1", "seq_mean_k2", "seq_mean_k3"]
RejectionTest = Literal[TokenTest, CaptionTest, "seq_max_k2", "seq_max_k3"]


class LoraSection(Section):
    """Low-rank adapters of the language model, trained in place of its weights: see owlcap.models.lora."""

    rank: int = Field(default=32, gt=0, le=512)  # 512: all that k_proj and v_proj of the 7B model can hold
    alpha: int = Field(default=64, gt=0)  # the change is scaled by alpha / rank
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layers: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )  # the language model's, each by its own name


class ModelSection(Section):
    """The policy checkpoint and how it is held in memory."""

    path: str  # a Hugging Face folder
    dtype: Literal["fp32", "bf16"] = "bf16"
    attention: Literal["auto", "sdpa", "flex", "flash_attention_2"] = "auto"  # auto: flex on a GPU, sdpa on a CPU
    freeze_vision: bool = True  # the vision blocks
    freeze_projector: bool = False  # the vision tower's patch merger
    freeze_motion_projector: bool = False  # the motion merger, in a checkpoint that has one
    gradient_checkpointing: bool = True
    lora: LoraSection | None = None  # null: the language model's own weights are trained


class VideoSection(Section):
    """How frames are sampled and resized; defaults are OwlCap's (spec: 2 fps, 16 to 768 frames)."""

    fps: float = Field(default=2.0, gt=0)
    min_frames: int = Field(default=16, gt=0)
    max_frames: int = Field(default=768, gt=0)
    min_pixels: int = Field(default=16 * 28 * 28, gt=0)  # of one frame
    max_pixels: int = Field(default=768 * 28 * 28, gt=0)  # of one frame
    total_pixels: int = Field(default=3584 * 28 * 28, gt=0)  # of all frames together
    backend: Literal["decord", "pyav", "torchcodec"] = "decord"
    deadline_s: float = Field(default=60.0, gt=0)  # for one clip; the decoder is killed after it
    num_workers: int = Field(default=1, gt=0)  # decoder processes of one loader

    @model_validator(mode="after")
    def _bounds_in_order(self) -> VideoSection:
        for low, high in (("min_frames", "max_frames"), ("min_pixels", "max_pixels")):
            least, most = getattr(self, low), getattr(self, high)
            if least > most:
                raise ValueError(f"{low} is {least} and {high} is {most}; the first may not be the larger one")
        return self


class DataSection(Section):
    """Data sets (JSONL in the messages + videos form) and the prompt."""

    train: str
    validation: str | None = None
    prompt: str | None = None  # replaces each row's own prompt
    target: str = "messages"  # SFT target: the assistant message, or a name under the row's `captions`
    reference: str = "reference"  # what rewards compare with: a name under `captions`; falls back to the target
    max_prompt_tokens: int = Field(default=8192, gt=0)
    max_bad_rows_share: float = Field(default=0.02, ge=0, le=1)  # more unreadable clips than this stop the run


Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    """AdamW with a warm-up and a schedule over optimizer steps."""

    lr: float = Field(gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)


class DeepSpeedSection(Section):
    """ZeRO stage and offload of the DeepSpeed engine."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = False
    offload_params: bool = False

    @model_validator(mode="after")
    def _offload_needs_stage(self) -> DeepSpeedSection:
        if self.offload_params and self.zero_stage != 3:
            raise ValueError("offload_params needs zero_stage 3")
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3")
        return self


class FeaturesSection(Section):
    """Cache of the vision tower's features, where nothing of the tower is trained: see owlcap.training.features."""

    folder: str | None = None  # null: run_dir/features, shared by its runs
    max_gib: float = Field(default=20.0, ge=0)  # of its files; what was used longest ago goes first. 0: no cache


class CheckpointSection(Section):
    """How often the whole training state is written, and how many are kept."""

    every_steps: int = Field(default=50, gt=0)
    keep: int = Field(default=2, gt=0)


class TrackingSection(Section):
    """JSONL and TensorBoard are always written; others go through verl's Tracking."""

    backends: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    project: str = "owlcap"
    images_every_steps: int = Field(default=20, ge=0)  # of RL: sampled captions beside their clips; 0: never


class SftSection(Section):
    """Supervised fine-tuning. Batch sizes count sequences over all ranks."""

    num_epochs: int = Field(default=1, gt=0)
    batch_size: int = Field(default=64, gt=0)
    tokens_per_micro_batch: int = Field(default=16384, gt=0)  # padded tokens on one rank
    validate_every_steps: int = Field(default=50, gt=0)
    num_validation: int = Field(default=256, gt=0)
    max_steps: int | None = Field(default=None, gt=0)  # stop earlier than num_epochs
    qa: str | None = None  # rows of questions and answers about the clips, trained on beside the captions
    qa_share: float = Field(default=0.2, gt=0, le=1)  # INTERPRETATION of M-ACM's "20 % of QA": of the rows of `qa`


class RolloutCorrectionSection(Section):
    """Correction for captions drawn by other logprobs than the learner's: weights exp(learner - sampler)."""

    importance: Literal["auto", "token", "sequence"] | None = (
        "auto"  # weight per token or caption; auto: token if async
    )
    importance_threshold: float = Field(default=2.0, gt=0)  # weights above it are cut to it
    rejection: RejectionTest | None = None  # tokens (token_*) or captions (seq_*) that fail it count 0
    rejection_threshold: float = Field(default=2.0, gt=0)  # of k1: ratios from 1/threshold to threshold pass

    @property
    def is_on(self) -> bool:
        """Whether anything is weighted or rejected; "auto" that is not `settled` weighs nothing."""
        return self.importance in ("token", "sequence") or self.rejection is not None


class AlgorithmSection(Section):
    """The policy update. Names are verl's registries' (docs/algorithms.md); defaults are OwlCap's GRPO."""

    advantage: str = "grpo"
    normalize_by_std: bool = True
    policy_loss: str = "vanilla"
    clip_ratio: float = Field(default=0.2, gt=0)
    clip_ratio_low: float | None = Field(default=None, gt=0)
    clip_ratio_high: float | None = Field(default=None, gt=0)
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = (
        "seq-mean-token-mean"
    )
    kl_beta: float = Field(default=0.04, ge=0)
    kl_estimator: Literal["k1", "kl", "abs", "k2", "mse", "k3", "low_var_kl", "k1+", "abs+", "k3+"] = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    sapo_tau_pos: float = Field(default=1.0, gt=0)
    sapo_tau_neg: float = Field(default=1.05, gt=0)
    dro_beta: float | None = Field(default=None, gt=0)
    rollout_correction: RolloutCorrectionSection = RolloutCorrectionSection()
    dynamic_sampling: bool = False  # sample on until prompts_per_step groups have different rewards; others are dropped
    max_sampling_rounds: int = Field(default=4, gt=0)  # of dynamic_sampling; then the step takes the groups it has
    drop_zero_variance: bool = False  # leave groups of equal rewards out of the update, and so of its mean and KL
    num_epochs: int = Field(default=1, gt=0)  # passes over a step's groups
    num_minibatches: int = Field(default=1, gt=0)  # optimizer updates a pass
    tokens_per_micro_batch: int = Field(default=16384, gt=0)  # packed tokens on one rank

    @model_validator(mode="after")
    def _consistent(self) -> AlgorithmSection:
        if self.policy_loss in ("sapo", "geo_mean") and self.loss_aggregation != "seq-mean-token-mean":
            raise ValueError(
                f"loss_aggregation is {self.loss_aggregation}, but {self.policy_loss} is always a mean over sequences; "
                "set loss_aggregation=seq-mean-token-mean"
            )
        if self.policy_loss == "geo_mean" and self.rollout_correction.is_on:
            raise ValueError("geo_mean takes no rollout_correction: verl averages its weights' logarithms")
        if (self.policy_loss == "dro") != (self.dro_beta is not None):
            raise ValueError("policy_loss=dro and dro_beta need one another; verl has no default for dro_beta")
        if self.kl_in == "reward" and self.kl_estimator.endswith("+"):
            raise ValueError("kl_estimator with + changes a gradient, and kl_in=reward has none; leave the + out")
        return self

    def settled(self, mode: str) -> AlgorithmSection:
        """With rollout_correction.importance "auto" replaced by what it means in that pipeline.mode.

        geo_mean takes no correction, so there it is always null.
        """
        if self.rollout_correction.importance != "auto":
            return self
        importance = "token" if mode == "async" and self.policy_loss != "geo_mean" else None
        correction = self.rollout_correction.model_copy(update={"importance": importance})
        return self.model_copy(update={"rollout_correction": correction})


class RolloutSection(Section):
    """Sampling of caption groups by the vLLM engines."""

    group_size: int = Field(default=8, gt=0)
    prompts_per_step: int = Field(default=16, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = -1
    max_new_tokens: int = Field(default=1024, gt=0)
    max_model_len: int = Field(default=10240, gt=0)
    max_num_seqs: int = Field(default=128, gt=0)
    kv_cache_gib: float | None = Field(default=None, gt=0)  # CPU engines; null: vLLM decides
    gpu_memory_utilization: float = Field(default=0.6, gt=0, le=1)
    enforce_eager: bool = False
    group_deadline_s: float = Field(default=600.0, gt=0)
    max_restarts: int = Field(default=3, ge=0)  # of one worker

    @model_validator(mode="after")
    def _trainable_sampling(self) -> RolloutSection:
        if self.group_size < 2:
            raise ValueError("group_size is 1: a group of one has no advantage (its mean is itself); use 2 or more")
        if self.top_p != 1.0 or self.top_k != -1:
            raise ValueError(
                "top_p and top_k must stay 1.0 and -1 in training: truncated sampling renormalises the logprobs and "
                "biases the importance ratio"
            )
        return self


class PipelineSection(Section):
    """What runs at the same time: see rl.pipeline."""

    mode: Literal["sync", "overlap", "async"] = "overlap"
    ahead: int = Field(default=1, gt=0)  # async: steps for which captions are made while an earlier one is trained
    max_staleness: int | None = Field(default=None, gt=0)  # groups sampled more updates ago are left out; null: none


class EvaluationSection(Section):
    """Held-out captions: greedy, and sampled when asked."""

    data: str | None = None
    every_steps: int = Field(default=50, gt=0)
    num_clips: int = Field(default=200, gt=0)
    at_start: bool = True
    sampled: bool = False  # also draw one caption a clip at temperature 1


class Run(Section):
    """Settings that SFT and RL share."""

    name: str = Field(pattern=r"^\w[\w.-]*$")  # a folder's name
    seed: int = Field(default=0, ge=0)
    run_dir: str = "runs"  # this run is written to run_dir/name
    model: ModelSection
    video: VideoSection = VideoSection()
    motion: MotionSection = MotionSection()
    data: DataSection
    optimizer: OptimizerSection
    deepspeed: DeepSpeedSection = DeepSpeedSection()
    features: FeaturesSection = FeaturesSection()
    cluster: ClusterSection = ClusterSection()
    checkpoint: CheckpointSection = CheckpointSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="after")
    def _attention_has_its_gpu(self) -> Run:
        if self.model.attention in ("flex", "flash_attention_2") and not self.cluster.gpus_per_learner:
            why = "torch's FlexAttention has no backward pass on a CPU"
            raise ValueError(
                f"model.attention is {self.model.attention}, which needs a GPU"
                f"{f' ({why})' if self.model.attention == 'flex' else ''}: set model.attention=sdpa or auto, or "
                "cluster.gpus_per_learner=1"
            )
        return self


class SftRun(Run):
    """`owlcap sft`."""

    kind: Literal["sft"] = "sft"
    sft: SftSection = SftSection()

    @model_validator(mode="after")
    def _ranks_divide_batch(self) -> SftRun:
        check_divides("sft.batch_size", self.sft.batch_size, self.cluster.learner_ranks)
        return self


class RlRun(Run):
    """`owlcap rl`."""

    kind: Literal["rl"] = "rl"
    num_steps: int | None = Field(default=None, gt=0)  # null: num_epochs over the data
    num_epochs: int = Field(default=1, gt=0)
    reference_model: str | None = None  # frozen reference of the KL term; null: model.path
    rollout: RolloutSection = RolloutSection()
    rewards: RewardsSection = RewardsSection()
    algorithm: AlgorithmSection
    pipeline: PipelineSection = PipelineSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _batch_divides(self) -> RlRun:
        minibatches = self.algorithm.num_minibatches
        check_divides(
            "rollout.prompts_per_step", self.rollout.prompts_per_step, self.cluster.learner_ranks * minibatches
        )
        if self.model.lora is not None and self.model.lora.dropout:
            raise ValueError(
                "model.lora.dropout must be 0 in reinforcement learning: the policy that is trained would be another "
                "than the one that sampled"
            )
        if self.algorithm.dynamic_sampling and self.pipeline.mode == "async":
            raise ValueError(
                "algorithm.dynamic_sampling samples on when it knows a step's rewards, pipeline.mode async before: set "
                "pipeline.mode=overlap or algorithm.dynamic_sampling=false"
            )
        if self.pipeline.mode == "async" and (self.cluster.colocate or self.cluster.weight_transfer == "nccl"):
            raise ValueError(
                "pipeline.mode async samples while it trains, so learner and engines cannot take turns on a GPU "
                "(cluster.colocate) nor meet for a transfer (cluster.weight_transfer=nccl): set "
                "cluster.colocate=false and cluster.weight_transfer=shared_memory, or pipeline.mode=overlap"
            )
        longest = self.data.max_prompt_tokens + self.rollout.max_new_tokens
        if longest > self.rollout.max_model_len:
            raise ValueError(
                f"rollout.max_model_len is {self.rollout.max_model_len}; data.max_prompt_tokens + "
                f"rollout.max_new_tokens is {longest}: raise the first or lower the others"
            )
        return self


def check_divides(key: str, count: int, parts: int) -> None:
    """Raise ValueError unless `count` splits evenly over `parts` learner ranks (times mini-batches)."""
    if count % parts:
        nearest = max(parts, round(count / parts) * parts)
        raise ValueError(
            f"{key} is {count}; it must be a multiple of {parts} (learner ranks x mini-batches): use {nearest}"
        )
