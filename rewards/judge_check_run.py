"""Asks a configured judge about the labelled set, and tells what came out (`owlcap judge-check`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from owlcap.config import RewardsSection
from owlcap.types import Sample, Score
from rewards.chat import Usage
from rewards.cser import CserReward
from rewards.judge_check import Measure, RowScores, measure
from rewards.judges import Judges
from rewards.labelled import LabelledRow


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """Measures of one judge over a labelled set."""

    judge: str
    num_rows: int
    repeats: int
    measures: tuple[Measure, ...]
    usage: Usage

    @property
    def missed(self) -> tuple[str, ...]:
        """Names of the measures beyond their limit."""
        return tuple(one.name for one in self.measures if one.missed)

    def table(self) -> str:
        """The report as text."""
        lines = [f"judge {self.judge}, {self.num_rows} rows, judged {self.repeats} times", ""]
        lines.append(f"{'measure':45}  {'value':>7}  {'over':>6}  {'limit':>8}  verdict")
        lines.extend(_line(one) for one in self.measures)
        usage = self.usage
        if usage.num_requests:
            tokens = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
            lines += ["", f"{usage.num_requests:,} requests, {tokens}, {usage.usd:.4f} USD"]
        else:
            lines += ["", "no requests: this judge asks no server"]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        measures = [{**asdict(one), "missed": one.missed} for one in self.measures]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "measures": measures}, indent=2) + "\n", encoding="utf-8")


def _line(one: Measure) -> str:
    value = "-" if one.value is None else f"{one.value:.3f}"
    limit = "" if one.limit is None else f"{'>=' if one.at_least else '<='} {one.limit:g}"
    verdict = "" if one.limit is None else "not measured" if one.value is None else "MISSED" if one.missed else "ok"
    return f"{one.name:45}  {value:>7}  {one.num:>6}  {limit:>8}  {verdict}".rstrip()


async def check_judge(
    settings: RewardsSection,
    rows: Sequence[LabelledRow],
    repeats: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> JudgeReport:
    """Judge a labelled set `repeats` times, each time by fresh judges that share no cache, and measure.

    Args:
        settings: whose judge, panel and cser sections are measured; terms are not looked at.
        progress: called with (rows judged, rows to judge).

    Raises:
        JudgeError: a judge's server is not there.
    """
    cache = settings.cache.model_copy(update={"enabled": False})
    fresh = settings.model_copy(update={"cache": cache})
    usage = Usage()
    rounds: list[list[RowScores]] = []
    for number in range(repeats):
        judges = Judges(fresh)
        try:
            await judges.check()
            done = number * len(rows)
            rounds.append(
                await _judge_rows(judges, rows, number == 0, lambda n: progress(n, repeats * len(rows)), done)
            )
            usage += judges.usage
        finally:
            await judges.close()
    scored = [
        replace(first, again=tuple(other.captions for other in others)) for first, *others in zip(*rounds, strict=True)
    ]
    names = {
        one.judge for row in scored for score in row.captions if isinstance(score, Score) for one in score.judgements
    }
    name = ", ".join(sorted(names)) or "that gave no answer"
    return JudgeReport(name, len(rows), repeats, tuple(measure(scored)), usage)


async def _judge_rows(
    judges: Judges, rows: Sequence[LabelledRow], first: bool, progress: Callable[[int], None], done: int
) -> list[RowScores]:
    reward = CserReward(judges, {})
    room = asyncio.Semaphore(judges.settings.judge.concurrency)

    async def judge(row: LabelledRow) -> RowScores:
        nonlocal done
        async with room:
            scored = await _judge_row(reward, row, first=first, staged=judges.settings.cser.mode == "staged")
        done += 1
        progress(done)
        return scored

    return list(await asyncio.gather(*(judge(row) for row in rows)))


async def _judge_row(reward: CserReward, row: LabelledRow, *, first: bool, staged: bool) -> RowScores:
    sample = _sample(row.id, row.reference)
    captions = [candidate.caption for candidate in row.candidates]
    if not first:
        return RowScores(row, tuple(await reward.score_group(sample, captions)), ())
    scores = await reward.score_group(sample, [*captions, *(statement.text for statement in row.statements)])
    swapped = None
    if staged:  # the joint protocol asks another question of each side
        (swapped,) = await reward.score_group(_sample(row.id, captions[0]), [row.reference])
    return RowScores(row, tuple(scores[: len(captions)]), tuple(scores[len(captions) :]), swapped=swapped)


def _sample(name: str, reference: str) -> Sample:
    return Sample(id=name, video="", prompt="", caption=reference, reference=reference)
