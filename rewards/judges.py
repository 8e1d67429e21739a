"""The judge that the settings name."""

from __future__ import annotations

from owlcap.config import JudgeSection
from rewards.base import Judge


def make_judge(settings: JudgeSection) -> Judge:
    """Build `settings.kind`. The openai package is imported only where it is asked for: it costs a second."""
    if settings.kind == "openai":
        from rewards.openai_judge import OpenAIJudge

        return OpenAIJudge(settings)
    from rewards.lexical import LexicalJudge

    return LexicalJudge()
