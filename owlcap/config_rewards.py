"""The schema of rewards and their judges; a part of owlcap.config, which hands these sections on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

CACHE_SUFFIX = ".sqlite"


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class JudgeSection(Section):
    """Who judges captions: the offline lexical judge, or a model behind an OpenAI-compatible server."""

    kind: Literal["lexical", "openai"] = "lexical"
    model: str = "Qwen/Qwen3-32B"
    base_urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",)
    api_key_env: str = "OWLCAP_JUDGE_API_KEY"  # name of the environment variable
    temperature: float | None = Field(default=0.7, ge=0)  # null: not sent, for servers that refuse it
    max_tokens: int | None = Field(default=8192, gt=0)  # null: not sent; extra_body may name another limit
    structured_output: Literal["json_schema", "json_object", "none"] = "json_schema"  # the joint protocol uses none
    extra_body: dict[str, Any] = Field(default_factory=dict)  # sent with every request, as the server knows it
    call_deadline_s: float = Field(default=120.0, gt=0)  # all tries of one call together; one try gets half
    max_tries: int = Field(default=4, gt=0)
    concurrency: int = Field(default=64, gt=0)  # calls in flight, over all reward actors
    requests_per_minute: float | None = Field(default=None, gt=0)  # over all reward actors; null: no limit
    tokens_per_minute: float | None = Field(default=None, gt=0)  # input and output, over all reward actors
    breaker_failures: int = Field(default=10, gt=0)  # failed requests in a row after which a server is left alone
    breaker_rest_s: float = Field(default=30.0, gt=0)  # for so long; then one request tries it
    max_caption_words: int = Field(default=4000, gt=0)  # a longer caption is unscored, never cut
    usd_per_million_input: float = Field(default=0.0, ge=0)  # price, for cost accounting
    usd_per_million_output: float = Field(default=0.0, ge=0)


class CacheSection(Section):
    """Judges' replies kept on local disk and shared by every process of a machine."""

    enabled: bool = True  # false: replies are remembered within a process only
    path: str | None = None  # an sqlite file; null: judge.sqlite in the user's cache folder for owlcap
    max_gib: float = Field(default=2.0, gt=0)  # the least recently used replies go first
    max_age_days: float = Field(default=90.0, gt=0)

    @field_validator("path")
    @classmethod
    def _is_nobodys_data(cls, path: str | None) -> str | None:
        """A cache may be set aside or cleared, so that its name must not be that of another file."""
        if path is not None and Path(path).suffix != CACHE_SUFFIX:
            raise ValueError(f"{path} is no name of a judge cache; it must end in {CACHE_SUFFIX}")
        return path


class CserSection(Section):
    """Caption Set Equivalence Reward; defaults are the paper's but for `mode`."""

    mode: Literal["staged", "joint"] = "staged"  # joint: one call does all, as in OwlCap's released code
    match: Literal["lenient", "strict"] = "lenient"  # lenient: anything not contradicted agrees
    combine: Literal["sum", "f1", "product", "min"] = "sum"
    motion_weight: float = Field(default=1.0, ge=0)
    detail_weight: float = Field(default=1.0, ge=0)


class RewardTerm(Section):
    """One reward in the weighted total. `name` is a registered reward."""

    name: str
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)


class MonitorsSection(Section):
    """Signs of a policy that games its reward: a threshold warns when a step is beyond it; null: off."""

    length_correlation: float | None = Field(default=0.8, ge=0, le=1)  # of reward and tokens in a group; either sign
    repetition: float | None = Field(default=0.3, ge=0, le=1)
    unit_ratio: float | None = Field(default=2.0, gt=0)  # units of a prediction for each of its reference
    unit_growth: float | None = Field(default=1.5, gt=0)  # of that ratio, since the run's first steps
    judge_spread: float | None = Field(default=0.5, ge=0)  # CSER of a panel's judges, largest less smallest
    judge_disagreement: float | None = Field(default=0.3, ge=0, le=1)  # share of units that a panel labels differently
    held_out_gap: float | None = Field(default=0.3, ge=0)  # CSER of the reward less the held-out judge's
    held_out_judge: JudgeSection | None = None  # never used for the reward
    held_out_share: float = Field(default=0.1, gt=0, le=1)  # of the clips, that it judges too


class RewardsSection(Section):
    """Rewards, their weights, and when too few rollouts are scored."""

    terms: tuple[RewardTerm, ...] = (RewardTerm(name="cser"), RewardTerm(name="length"))
    cser: CserSection = CserSection()
    judge: JudgeSection = JudgeSection()  # of every reward that asks one
    panel: tuple[JudgeSection, ...] = ()  # further judges that vote on CSER
    panel_vote: Literal["mean", "median", "majority"] = "mean"  # of CSER values; majority: of each unit's labels
    prompts: str | None = None  # a folder whose files replace those of the same name in rewards/prompts
    cache: CacheSection = CacheSection()
    max_unscored_share: float = Field(default=0.5, ge=0, le=1)  # of one step; more stops the run
    monitors: MonitorsSection = MonitorsSection()
    rollout_deadline_s: float = Field(default=300.0, gt=0)  # a caption not scored by then is unscored
    max_unfinished_groups: int = Field(default=1024, gt=0)  # over all reward actors; handing over more waits
