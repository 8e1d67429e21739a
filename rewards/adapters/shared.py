"""One reward suite a process and configuration, called from any thread or event loop.

Training systems call reward functions from loops and threads of their own, while a suite lives in one event loop:
here that is a thread's, for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from itertools import groupby
from typing import Any

from owlcap.config_io import load_rewards
from owlcap.errors import ConfigError, RewardError
from owlcap.types import Choice, RewardBreakdown, Sample, ScoredRollout, Unscored
from rewards.suite import RewardSuite, make_suite

EXTRA_COLUMNS = ("questions", "keypoints")  # some rewards ask for them

_lock = threading.Lock()


class SharedSuite:
    """A suite in a thread of its own; made by `shared_suite`."""

    def __init__(self, suite: RewardSuite) -> None:
        self._suite = suite
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="rewards", daemon=True).start()

    def submit(self, sample: Sample, captions: Sequence[str]) -> Future[tuple[ScoredRollout, ...]]:
        """Start scoring the captions of one clip."""
        return asyncio.run_coroutine_threadsafe(self._suite.score_group(sample, captions), self._loop)

    def submit_rows(
        self, column: str, columns: Mapping[str, Any], completions: Sequence[object]
    ) -> list[Future[tuple[ScoredRollout, ...]]]:
        """Start scoring a batch; neighbours of the same sample are one group.

        Args:
            column: of the data set, with the references; its columns `questions` and `keypoints` are used too.

        Raises:
            ConfigError: the data set has no such column.
        """
        if column not in columns:
            raise ConfigError(
                f'the data set has no column "{column}"',
                allowed=", ".join(sorted(columns)),
                cure="name the column of the references: column=...",
            )
        captions = [caption_text(completion) for completion in completions]
        needed = [columns[column], *(columns.get(name) or [None] * len(captions) for name in EXTRA_COLUMNS)]
        if any(len(values) != len(captions) for values in needed):
            raise RewardError(f"there are {len(columns[column])} references for {len(captions)} completions")
        samples = [make_sample(reference, "", *extra) for reference, *extra in zip(*needed, strict=True)]
        groups = groupby(zip(samples, captions, strict=True), key=lambda row: row[0])
        return [self.submit(sample, [caption for _, caption in rows]) for sample, rows in groups]


def make_sample(reference: object, id: str, questions: Any = None, keypoints: Any = None) -> Sample:
    """A sample without a video, of values as data sets hold them; None is as good as nothing.

    Args:
        questions: rows {"question", "options", "answer"}.
        keypoints: statements.

    Raises:
        RewardError: one of them has another form.
    """
    if not isinstance(reference, str):
        raise RewardError(f"the reference is a {type(reference).__name__}", where=id, allowed="a string")
    rows, points = (() if values is None else tuple(values) for values in (questions, keypoints))
    try:
        choices = tuple(Choice(row["question"], tuple(row["options"]), row["answer"]) for row in rows)
    except (KeyError, TypeError) as error:
        allowed = '{"question": text, "options": [text, ...], "answer": one of the options}'
        raise RewardError("the questions have another form", where=id, allowed=allowed) from error
    if any(choice.answer not in choice.options for choice in choices):
        raise RewardError("the answer of a question is none of its options", where=id)
    if not all(isinstance(point, str) for point in points):
        raise RewardError("the keypoints are not all strings", where=id)
    return Sample(id, "", "", caption=reference, reference=reference, questions=choices, keypoints=points)


def shared_suite(config: str, overrides: Sequence[str] = ()) -> SharedSuite:
    """The process's suite of that configuration, built at the first call.

    Args:
        config: a rewards YAML or an RL configuration; see `owlcap.config_io.load_rewards`.
        overrides: `key=value` settings that win over the file.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    with _lock:
        return _suite(config, tuple(overrides))


@cache
def _suite(config: str, overrides: tuple[str, ...]) -> SharedSuite:
    return SharedSuite(make_suite(load_rewards(config, overrides)))


def totals(groups: Sequence[Sequence[ScoredRollout]]) -> list[float | None]:
    """The groups' totals in order; None is unscored."""
    return [score.total if isinstance(score, RewardBreakdown) else None for group in groups for score in group]


def number(outcome: ScoredRollout, unscored_value: float | None, where: str) -> float:
    """The total, for systems that cannot mask a caption; an unscored one has the value that the user names.

    Raises:
        RewardError: the caption is unscored, and `unscored_value` is not given.
    """
    if not isinstance(outcome, Unscored):
        return outcome.total
    if unscored_value is None:
        raise RewardError(
            f"a caption is unscored by {outcome.reward}: {outcome.reason}",
            where=where,
            cure="mend the judge, or name the value of such captions: unscored_value",
        )
    return float(unscored_value)


def caption_text(completion: object) -> str:
    """The text of a completion: a string, or chat messages of which the last is the caption.

    Raises:
        RewardError: it is neither.
    """
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        completion = completion[-1].get("content")
        if isinstance(completion, list):
            completion = "".join(part.get("text") or "" for part in completion if part.get("type") == "text")
    if not isinstance(completion, str):
        raise RewardError(
            f"a completion is a {type(completion).__name__}", allowed="a string, or a list of chat messages"
        )
    return completion
