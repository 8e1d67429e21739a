"""Every value that crosses a boundary between components: frozen dataclasses, standard library only.

Arrays are numpy; shapes are in comments with these letters:
T frames, H height, W width, N vision patches, D patch values (3 * temporal_patch * patch * patch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Tag = Literal["motion", "detail"]
Label = Literal["supported", "contradicted", "not_mentioned"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One known truth about a clip, e.g. Fact("shirt=red", "detail")."""

    text: str
    tag: Tag


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice question about a clip. `answer` is one of the `options`, which all differ."""

    question: str
    options: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a data set: a video, the question asked of it, and its captions.

    The video stands where `prompt` holds the mark `<video>`, or after it where there is none.
    `caption` is what SFT imitates; `reference` is what rewards and evaluation compare with
    (equal to `caption` unless the row names another). Some rewards ask for `questions` or `keypoints`.
    """

    id: str
    video: str
    prompt: str
    caption: str
    reference: str
    facts: tuple[Fact, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    questions: tuple[Choice, ...] = ()
    keypoints: tuple[str, ...] = ()  # statements that a good caption conveys
    overlays: tuple[str, ...] = ()  # picture files, in order of time: key frames with a body mesh drawn in


@dataclass(frozen=True, slots=True)
class VideoClip:
    """Decoded and sampled frames with what the model needs to know about their timing."""

    frames: np.ndarray  # uint8 [T, H, W, 3], RGB
    fps: float  # of the source, frames a second
    duration_s: float
    total_num_frames: int  # of the source
    frame_indices: tuple[int, ...]  # [T], positions in the source
    overlays: tuple[np.ndarray, ...] = ()  # uint8 [H, W, 3] each, RGB: what the motion pathway sees


@dataclass(frozen=True, slots=True)
class OverlayInputs:
    """What the vision tower takes for one prompt's overlays."""

    pixel_values: np.ndarray  # float32 [N, D], one picture after another
    grids_thw: tuple[tuple[int, int, int], ...]  # of each picture: 1, patches in height and width


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """What the vision tower takes for one prompt's video, and for its overlays, which stand before the video."""

    pixel_values_videos: np.ndarray  # float32 [N, D]
    video_grid_thw: tuple[int, int, int]  # patches in time, height, width; N = t * h * w
    second_per_grid_ts: float  # seconds between two temporal patches
    overlays: OverlayInputs | None = None

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]:
        """Of the overlays and the video, in the order of their tokens."""
        return (*(self.overlays.grids_thw if self.overlays else ()), self.video_grid_thw)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt: token ids with every video placeholder expanded, and the vision inputs."""

    token_ids: tuple[int, ...]
    vision: VisionInputs


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How completions are drawn. Temperature 0 is greedy. Seeds make a request reproducible."""

    num_completions: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_new_tokens: int = 1024
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled caption. `token_ids` ends with the end-of-turn token when finish_reason is "stop"."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # of each token under the sampling engine, same length
    text: str  # special tokens removed
    finish_reason: FinishReason
    policy_version: int


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """G completions of one prompt. `prompt` is a Ray object reference to a Prompt, put once a group."""

    sample: Sample
    completions: tuple[Completion, ...]
    prompt: Any = None  # ray.ObjectRef[Prompt], or a Prompt outside Ray, or None when not asked for
    num_prompt_tokens: int = 0
    decode_s: float = 0.0
    generate_s: float = 0.0

    @property
    def policy_version(self) -> int:
        """Of the policy that all completions come from."""
        return self.completions[0].policy_version


@dataclass(frozen=True, slots=True)
class RolloutFailure:
    """A prompt that gave no group, with the reason: a bad clip is counted and logged, never fatal alone."""

    sample: Sample
    error: str  # class name of the error
    reason: str


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest statement of a caption that still means something alone (CSER, OwlCap section 3.3)."""

    text: str
    tag: Tag
    label: Label


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's answer for one pair of captions: both unit lists, each checked against the other caption.

    Rewards that ask about one direction only leave the other list empty.
    """

    predicted_units: tuple[Unit, ...]
    reference_units: tuple[Unit, ...]
    judge: str
    reply_ids: tuple[str, ...] = ()  # of the server's replies it rests on; a reply from the cache keeps its id


@dataclass(frozen=True, slots=True)
class Score:
    """A reward's value for one rollout, with named figures beside it and the evidence it rests on."""

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    judgements: tuple[Judgement, ...] = ()  # one a judge


@dataclass(frozen=True, slots=True)
class Unscored:
    """A stated failure: the rollout has no reward, leaves the group's statistics and gets no gradient."""

    reward: str
    reason: str


@dataclass(frozen=True, slots=True)
class RewardBreakdown:
    """Weighted total of several rewards for one rollout, with each part."""

    total: float
    parts: Mapping[str, Score]
    metrics: Mapping[str, float] = field(default_factory=dict)


ScoredRollout = RewardBreakdown | Unscored


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A rollout group with one RewardBreakdown or Unscored per completion, in order."""

    group: RolloutGroup
    scores: tuple[ScoredRollout, ...]
    score_s: float = 0.0

    @property
    def totals(self) -> tuple[float | None, ...]:
        """Reward of each completion, None where it is unscored."""
        return tuple(s.total if isinstance(s, RewardBreakdown) else None for s in self.scores)


@dataclass(frozen=True, slots=True)
class LearnerGroup:
    """What the learner needs of one scored group: token ids, advantages and the sampler's logprobs."""

    prompt: Any  # ray.ObjectRef[Prompt] or Prompt
    completions: tuple[tuple[int, ...], ...]
    rollout_logprobs: tuple[tuple[float, ...], ...]
    advantages: tuple[float, ...]  # one a completion; unscored rollouts are left out before this point
    rewards: tuple[float, ...] = ()  # one a completion; read where the KL is taken from the reward
