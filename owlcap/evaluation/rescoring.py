"""Saved captions scored again, a bounded number at a time; their figures; and results kept in a file."""

from __future__ import annotations

import asyncio
import fcntl
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TextIO

from owlcap.data.text_file import parse_json
from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.saved import Contents, SavedGroup, json_text
from owlcap.types import RewardBreakdown, Score, ScoredRollout, Unscored
from rewards.chat import Usage
from rewards.suite import RewardSuite

CHARACTERS_A_TOKEN = 4  # of English, roughly
CHARACTERS_OF_INSTRUCTIONS = 1_000  # of one of the project's own prompt templates, roughly

Each = Callable[[int, SavedGroup, tuple[ScoredRollout, ...]], None]


async def score_groups(suite: RewardSuite, groups: Iterable[SavedGroup], in_flight: int, each: Each) -> None:
    """Score groups and close the suite; `each` gets a group with its place as its scores come.

    Args:
        in_flight: groups that are read ahead; further ones stay where they are.

    Raises:
        JudgeError: a judge's server is not there, before anything is scored.
        RewardError: a reward broke its contract.
    """

    room = asyncio.Semaphore(in_flight)

    async def one(place: int, group: SavedGroup) -> None:
        each(place, group, await suite.score_group(group.sample, group.captions))
        room.release()

    try:
        await suite.check()
        async with asyncio.TaskGroup() as tasks:
            for place, group in enumerate(groups):
                await room.acquire()
                tasks.create_task(one(place, group))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        await suite.close()


@dataclass(slots=True)
class ClusteredMean:
    """Mean over captions; its standard error takes captions of one group as dependent (clustered by group)."""

    num_groups: int = 0
    n: int = 0
    sum: float = 0.0
    _nn: float = 0.0  # sums over groups, with n and s the count and the sum of one group
    _ss: float = 0.0
    _ns: float = 0.0

    def add(self, values: Sequence[float]) -> None:
        """One group's values."""
        n, s = len(values), sum(values)
        self.num_groups, self.n, self.sum = self.num_groups + 1, self.n + n, self.sum + s
        self._nn, self._ss, self._ns = self._nn + n * n, self._ss + s * s, self._ns + n * s

    @property
    def mean(self) -> float:
        return self.sum / self.n

    @property
    def standard_error(self) -> float | None:
        """None for fewer than two groups."""
        if self.num_groups < 2:
            return None
        squares = self._ss - 2 * self.mean * self._ns + self.mean**2 * self._nn  # of the groups' sums of residuals
        return (max(squares, 0.0) * self.num_groups / (self.num_groups - 1)) ** 0.5 / self.n

    def __str__(self) -> str:
        error = self.standard_error
        return f"{self.mean:.3f}" + ("" if error is None else f" ± {error:.3f}")


@dataclass(slots=True)
class Tally:
    """Figures of the scores so far; holds sums, not captions."""

    columns: dict[str, ClusteredMean] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    num_scored: int = 0

    def add(self, scores: Sequence[ScoredRollout]) -> None:
        """One group's scores."""
        values: dict[str, list[float]] = {}
        for score in scores:
            if isinstance(score, Unscored):
                self.reasons[f"{score.reward}: {score.reason}"] += 1
                continue
            self.num_scored += 1
            parts = {f"reward/{name}": part.value for name, part in score.parts.items()}
            for name, value in {"total": score.total, **parts, **score.metrics}.items():
                values.setdefault(name, []).append(value)
        for name, column in values.items():
            self.columns.setdefault(name, ClusteredMean()).add(column)

    def text(self) -> str:
        """Means with standard errors, and the reasons of the unscored."""
        width = max((len(name) for name in self.columns), default=0)
        lines = [f"{name:<{width}}  {column}  n={column.n}" for name, column in self.columns.items()]
        lines.append(f"{self.num_scored} of {self.num_scored + self.reasons.total()} captions scored")
        lines += [f"unscored, {count}: {reason}" for reason, count in self.reasons.most_common()]
        return "\n".join([*lines, "± is the standard error, with the captions of one row as one cluster"])


async def score_into(
    tally: Tally,
    out: TextIO | None,
    suite: RewardSuite,
    groups: Iterable[SavedGroup],
    in_flight: int,
    progress: Callable[[int], None],
) -> None:
    """As `score_groups`, with the scores counted into `tally` and added to `out`; `progress` gets the groups so far."""
    so_far = count(1)

    def each(_: int, group: SavedGroup, scores: tuple[ScoredRollout, ...]) -> None:
        tally.add(scores)
        if out is not None:
            out.write(result_row(group, scores))
            out.flush()
        progress(next(so_far))

    await score_groups(suite, groups, in_flight, each)


@contextmanager
def results_file(path: Path | None, resume: bool) -> Iterator[TextIO | None]:
    """The file of results, for this process alone; None where there is no path.

    Raises:
        ConfigError: another process writes it, or it has results and `resume` is not set.
    """
    if path is None:
        yield None
        return
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another process writes to --out", where=str(path), cure="wait for it, or name another file"
            ) from error
        if path.stat().st_size and not resume:
            raise ConfigError(
                "--out is there already",
                where=str(path),
                cure="go on with it by --resume, delete it, or name another file",
            )
        yield file


def usage_line(usage: Usage) -> str:
    """Requests, tokens and cost."""
    return (
        f"judge: {usage.num_requests} requests, {usage.num_cached} from the cache, "
        f"{usage.input_tokens} input and {usage.output_tokens} output tokens, {usage.usd:.4f} USD"
    )


def plan_line(contents: Contents, num_calls: int) -> str:
    """What scoring would ask of judges, at most."""
    texts = contents.num_characters / max(1, contents.num_captions)
    tokens = round(num_calls * (texts + CHARACTERS_OF_INSTRUCTIONS) / CHARACTERS_A_TOKEN)
    return (
        f"{contents.num_groups} rows, {contents.num_captions} captions: "
        f"at most {num_calls} judge calls, about {tokens} input tokens"
    )


def result_row(group: SavedGroup, scores: Sequence[ScoredRollout]) -> str:
    """A group's results with their evidence, one line of JSON."""
    results = [
        {"caption": caption, "unscored": None, **asdict(score)}
        if isinstance(score, RewardBreakdown)
        else {"caption": caption, "total": None, "unscored": asdict(score)}
        for caption, score in zip(group.captions, scores, strict=True)
    ]
    row = {"id": group.sample.id, "reference": group.sample.reference, "results": results}
    return json_text(row) + "\n"


def kept_results(path: Path, tally: Tally) -> Counter[int]:
    """Count the results of an earlier run into `tally`; a line that was cut off at the end is removed.

    Returns:
        How many groups of each `key` are done.

    Raises:
        DataError: the file holds something else.
    """
    done: Counter[int] = Counter()
    whole = 0  # bytes
    with path.open("r+b") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = parse_json(line.decode())
                tally.add([_score(result) for result in row["results"]])
                captions = tuple(result["caption"] for result in row["results"])
                done[hash((row["id"], row["reference"], captions))] += 1
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    "this is no result of owlcap score", where=f"{path}:{number}", cure="give another --out"
                ) from error
            whole += len(line)
        file.truncate(whole)
    return done


def not_yet(groups: Iterable[SavedGroup], done: Counter[int]) -> Iterator[SavedGroup]:
    """The groups that `kept_results` did not find."""
    left = done.copy()
    for group in groups:
        key = hash((group.sample.id, group.sample.reference, group.captions))
        if left[key]:
            left[key] -= 1
        else:
            yield group


def _score(result: dict) -> ScoredRollout:
    if result["unscored"] is not None:
        return Unscored(**result["unscored"])
    parts = {name: Score(part["value"]) for name, part in result["parts"].items()}
    return RewardBreakdown(result["total"], parts, result["metrics"])
