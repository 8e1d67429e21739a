"""`owlcap score` and `owlcap compare`: try rewards on saved captions, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.console import check_out, progress_bar, say
from owlcap.errors import ConfigError

if TYPE_CHECKING:
    from owlcap.evaluation.saved import Contents
    from rewards.suite import RewardSuite


def score(
    given: Annotated[
        list[str],
        typer.Argument(metavar="FILE.jsonl... [KEY=VALUE]...", help="Captions, and settings that win over the file."),
    ],
    reward: Annotated[str, typer.Option(help="A rewards YAML, or an RL configuration (a file or a name).")],
    out: Annotated[Path | None, typer.Option(help="Write every score with its evidence here, as JSONL.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that --out has, and score the others.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the judge calls, and make none.")] = False,
) -> None:
    """Score saved captions; needs no GPU and no Ray.

    A row is {"id", "reference", "caption"}, or has "captions": [...], or is of a run's rollouts/*.jsonl.
    """
    from owlcap.config_io import load_rewards
    from owlcap.evaluation.rescoring import plan_line
    from owlcap.evaluation.saved import look_through
    from rewards.catalogue import judge_calls
    from rewards.suite import make_suite

    others, files, overrides = _sorted_out(given)
    if others:
        raise ConfigError(f"{others[0]} is no file of captions", allowed="names that end with .jsonl, and key=value")
    check_out(out)
    if resume and out is None:
        raise ConfigError("--resume is given without --out", cure="name the file to go on with: --out FILE")
    settings = load_rewards(reward, overrides)
    suite = make_suite(settings)
    contents = look_through(files)
    _say_repeated(contents)
    if dry_run:
        say(plan_line(contents, judge_calls(settings, contents.num_captions, contents.num_groups)))
        return
    if not _score(suite, files, contents.num_groups, settings.judge.concurrency, out, resume):
        raise typer.Exit(1)


def _score(
    suite: RewardSuite, files: list[Path], num_groups: int, in_flight: int, out: Path | None, resume: bool
) -> int:
    """Score, and say how it went; the number of captions that have a score."""
    import asyncio
    from collections import Counter

    from owlcap.evaluation.rescoring import Tally, kept_results, not_yet, results_file, score_into, usage_line
    from owlcap.evaluation.saved import read_groups

    tally = Tally()
    num_new = 0
    with results_file(out, resume) as file, progress_bar("scoring") as progress:
        done = kept_results(out, tally) if out is not None else Counter()
        groups = not_yet(read_groups(files), done)

        def scored(number: int) -> None:
            nonlocal num_new
            num_new = number
            progress(done.total() + number, num_groups)

        asyncio.run(score_into(tally, file, suite, groups, in_flight, scored))
    if done:
        say(f"{done.total()} rows kept from {out}")
    num_others = done.total() + num_new - num_groups
    if num_others:
        say(f"{num_others} of them are not among the captions given, and count in these figures all the same")
    say(tally.text())
    say(usage_line(suite.usage))
    return tally.num_scored


def compare(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="REWARD... FILE.jsonl... [KEY=VALUE]...",
            help="Two or more rewards YAMLs or RL configurations, captions, and settings that win over all of them.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Also write the report here as JSON.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Captions to show of each pair: those that differ most.")] = 3,
) -> None:
    """Score saved captions by several rewards: rank correlation, changed advantages, shifts by tag, cost."""
    import asyncio

    from owlcap.config_io import load_rewards
    from owlcap.evaluation.compare import Rescored
    from owlcap.evaluation.compare import compare as compare_scores
    from owlcap.evaluation.compare_table import comparison_text
    from owlcap.evaluation.rescoring import score_groups
    from owlcap.evaluation.saved import SavedGroup, look_through, read_groups
    from owlcap.types import ScoredRollout
    from rewards.suite import make_suite

    check_out(out)
    rewards, files, overrides = _sorted_out(given)
    if len(set(rewards)) < 2:
        raise ConfigError(
            f"{len(set(rewards))} different rewards are given",
            allowed="two or more different ones",
            cure="owlcap compare a.yaml b.yaml rollouts.jsonl",
        )
    rewards = list(dict.fromkeys(rewards))
    stems = [Path(reward).stem for reward in rewards]
    names = stems if len(set(stems)) == len(stems) else rewards
    settings = [load_rewards(reward, overrides) for reward in rewards]
    suites = [make_suite(one) for one in settings]
    contents = look_through(files)
    _say_repeated(contents)
    groups = list(read_groups(files))
    rescored: list[Rescored] = []
    with progress_bar("scoring") as progress:
        for number, (name, one, suite) in enumerate(zip(names, settings, suites, strict=True)):
            scores: dict[int, tuple[ScoredRollout, ...]] = {}

            def each(place: int, _: SavedGroup, found: tuple[ScoredRollout, ...], number=number, scores=scores) -> None:
                scores[place] = found
                progress(number * len(groups) + len(scores), len(suites) * len(groups))

            asyncio.run(score_groups(suite, groups, one.judge.concurrency, each))
            rescored.append(Rescored(name, [scores[place] for place in range(len(groups))], suite.usage))
    report = compare_scores(groups, rescored, show)
    say(comparison_text(report))
    if out is not None:
        report.write(out)


def _sorted_out(given: Sequence[str]) -> tuple[list[str], list[Path], list[str]]:
    """Other names, files of captions and settings of the command line, by how they look."""
    files = [Path(text) for text in given if text.endswith(".jsonl") and "=" not in text]
    overrides = [text for text in given if "=" in text]
    others = [text for text in given if "=" not in text and not text.endswith(".jsonl")]
    if not files:
        raise ConfigError("no captions are given", allowed="one or more files whose names end with .jsonl")
    return others, files, overrides


def _say_repeated(contents: Contents) -> None:
    repeated = contents.repeated_ids
    if repeated:
        more = f", and {len(repeated) - 5} more" if len(repeated) > 5 else ""
        say(f"ids of several rows, each scored: {', '.join(repeated[:5])}{more}")
