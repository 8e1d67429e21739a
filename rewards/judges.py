"""The judges of one suite of rewards: built once, shared by all rewards that ask them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from owlcap.config import JudgeSection, RewardsSection
from owlcap.errors import ConfigError, JudgeError
from rewards.base import Judge
from rewards.chat import ChatModel, Usage
from rewards.text import words

if TYPE_CHECKING:
    from rewards.cache import ReplyCache
    from rewards.limits import RateLimiter
    from rewards.openai_chat import OpenAIChat

MAIN, HELD_OUT = "judge", "held-out"
CHARACTERS_A_WORD = 12  # above this, a text is longer than its count of words tells: it has no spaces, or no letters


@dataclass(frozen=True, slots=True)
class Calls:
    """Requests to judges that a reward takes at most, when none is tried again or answered from the cache."""

    per_caption: int = 0
    per_reference: int = 0


class Judges:
    """Models and CSER judges by the settings of a run. The openai package is imported only where it is asked for.

    Args:
        limiter: of the judges' rates, where several processes share them; None: one of this process's own.

    Raises:
        ConfigError: settings that do not fit together.
    """

    def __init__(self, settings: RewardsSection, limiter: RateLimiter | None = None) -> None:
        self.settings = settings
        self._limiter = limiter
        _check_panel(settings)

    @cached_property
    def model(self) -> ChatModel:
        """The model that rewards ask their questions.

        Raises:
            ConfigError: the judge is the lexical one, which answers no questions.
        """
        if self.settings.judge.kind != "openai":
            raise ConfigError(
                "this reward needs a language model as its judge",
                where="rewards.judge.kind",
                allowed="openai",
                cure="set rewards.judge.kind=openai, and base_urls and model to a judge's server",
            )
        return self._models[MAIN]

    @cached_property
    def members(self) -> tuple[Judge, ...]:
        """Judges of CSER: the run's own and the panel's."""
        return tuple(self._judge(name) for name in judge_sections(self.settings))

    @cached_property
    def held_out(self) -> Judge:
        """The judge that gives no reward; only where rewards.monitors names one."""
        return self._judge(HELD_OUT)

    @property
    def usage(self) -> Usage:
        """Of all models together."""
        return sum((model.usage for model in self._models.values()), Usage())

    async def check(self) -> None:
        """Ask every server whether it is there and has its model.

        Raises:
            JudgeError: one of them is not, or has not.
        """
        for model in self._models.values():
            await model.check()

    async def close(self) -> None:
        """Close the models' connections and the cache's file."""
        for model in self._models.values():
            await model.close()
        if self._models:
            self._cache.close()

    @cached_property
    def _models(self) -> Mapping[str, OpenAIChat]:
        sections = {name: judge for name, judge in all_judges(self.settings).items() if judge.kind == "openai"}
        if not sections:
            return {}
        from rewards.limits import LocalLimiter
        from rewards.openai_chat import OpenAIChat

        limiter = self._limiter or LocalLimiter(sections)
        return {name: OpenAIChat(judge, self._cache, limiter, limited_as=name) for name, judge in sections.items()}

    @cached_property
    def _cache(self) -> ReplyCache:
        from rewards.cache import ReplyCache

        return ReplyCache(self.settings.cache)

    def _judge(self, name: str) -> Judge:
        settings = self.settings
        if all_judges(settings)[name].kind == "lexical":
            from rewards.lexical import LexicalJudge

            return LexicalJudge()
        model = self._models[name]
        if settings.cser.mode == "joint":
            from rewards.joint import JointJudge

            return JointJudge(model, settings.prompts)
        from rewards.staged import StagedJudge

        # The run's own judge, where it is a model. The held-out judge shares nothing with it, not even the units.
        splitter = model if name == HELD_OUT else next(iter(self._models.values()))
        return StagedJudge(splitter, model, settings.prompts)


def judge_sections(settings: RewardsSection) -> dict[str, JudgeSection]:
    """The judges that give the reward, by the names that rate limits know them by: judge, panel-1, panel-2, ..."""
    panel = {f"panel-{number}": judge for number, judge in enumerate(settings.panel, start=1)}
    return {MAIN: settings.judge, **panel}


def all_judges(settings: RewardsSection) -> dict[str, JudgeSection]:
    """These and the held-out judge, if any."""
    held_out = settings.monitors.held_out_judge
    return judge_sections(settings) | ({HELD_OUT: held_out} if held_out is not None else {})


def _check_panel(settings: RewardsSection) -> None:
    kinds = {judge.kind for judge in judge_sections(settings).values()}
    if settings.panel and settings.panel_vote == "majority" and (settings.cser.mode == "joint" or len(kinds) > 1):
        raise ConfigError(
            "a majority of labels needs judges that label the same units",
            where="rewards.panel_vote",
            allowed="majority with cser.mode=staged and judges of one kind; mean or median with any",
        )
    for number, judge in enumerate(settings.panel, start=1):
        if judge.kind == "lexical" and judge.model_fields_set & {"model", "base_urls"}:
            raise ConfigError(
                f"judge {number} of the panel names a model, but its kind is lexical",
                where="rewards.panel",
                cure="give it kind: openai",
            )
    asked = [
        (judge.kind, judge.model, judge.temperature, judge.extra_body) for judge in judge_sections(settings).values()
    ]
    if any(one in asked[:index] for index, one in enumerate(asked)):
        raise ConfigError(
            "two judges of the panel are the same: they would answer with one and the same reply",
            where="rewards.panel",
            cure="take another model, or tell them apart, e.g. by extra_body: {seed: 1}",
        )


def check_captions(predicted: str, reference: str, judge: JudgeSection) -> None:
    """Refuse what no judge should be asked about.

    Raises:
        JudgeError: an empty reference, or a caption longer than the judge may be given.
    """
    if not reference.strip():
        raise JudgeError("the reference caption is empty", cure="give every row a reference caption")
    check_length("caption", predicted, judge)
    check_length("reference caption", reference, judge)


def check_length(name: str, caption: str, judge: JudgeSection) -> None:
    """Refuse a caption that is longer than the judge may be given.

    Raises:
        JudgeError: it is.
    """
    num_words = max(len(words(caption)), len(caption) // CHARACTERS_A_WORD)
    if num_words > judge.max_caption_words:
        raise JudgeError(
            f"the {name} has {num_words} words",
            allowed=f"rewards.judge.max_caption_words={judge.max_caption_words}",
            cure="lower rollout.max_new_tokens, or raise the limit if the judge's context holds it",
        )
