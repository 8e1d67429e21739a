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
    from rewards.limits import RateLimiter
    from rewards.openai_chat import OpenAIChat

MAIN = "judge"
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
        if settings.panel and settings.panel_vote == "majority" and settings.cser.mode == "joint":
            raise ConfigError(
                "a majority of labels needs judges that label the same units",
                where="rewards.panel_vote",
                allowed="mean or median with cser.mode=joint; majority with cser.mode=staged",
            )

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
        """Close the models' connections."""
        for model in self._models.values():
            await model.close()

    @cached_property
    def _models(self) -> Mapping[str, OpenAIChat]:
        sections = {name: judge for name, judge in judge_sections(self.settings).items() if judge.kind == "openai"}
        if not sections:
            return {}
        from rewards.cache import ReplyCache
        from rewards.limits import LocalLimiter
        from rewards.openai_chat import OpenAIChat

        limiter = self._limiter or LocalLimiter(sections)
        cache = ReplyCache(self.settings.cache)
        return {name: OpenAIChat(judge, cache, limiter, limited_as=name) for name, judge in sections.items()}

    def _judge(self, name: str) -> Judge:
        settings = self.settings
        if judge_sections(settings)[name].kind == "lexical":
            from rewards.lexical import LexicalJudge

            return LexicalJudge()
        model = self._models[name]
        if settings.cser.mode == "joint":
            from rewards.joint import JointJudge

            return JointJudge(model, settings.prompts)
        from rewards.staged import StagedJudge

        splitter = self._models.get(MAIN, model)
        return StagedJudge(splitter, model, settings.prompts)


def judge_sections(settings: RewardsSection) -> dict[str, JudgeSection]:
    """All judges of a run by the names that rate limits know them by: judge, panel-1, panel-2, ..."""
    panel = {f"panel-{number}": judge for number, judge in enumerate(settings.panel, start=1)}
    return {MAIN: settings.judge, **panel}


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
