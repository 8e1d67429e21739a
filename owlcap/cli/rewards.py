"""`owlcap score`: try a reward on saved captions, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import progress_bar, say


def score(
    captions: Annotated[Path, typer.Argument(help="JSONL: id, reference, caption(s); or a run's rollouts file.")],
    reward: Annotated[str, typer.Option(help="A rewards YAML, or an RL configuration (a file or a name).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write every score with its evidence here, as JSONL.")] = None,
) -> None:
    """Score saved captions; needs no GPU and no Ray."""
    import asyncio
    from contextlib import ExitStack

    from owlcap.config_io import load_rewards
    from owlcap.evaluation.rescoring import read_groups, result_row, score_groups, summary
    from owlcap.types import ScoredRollout
    from rewards.suite import make_suite

    suite = make_suite(load_rewards(reward, overrides or ()))
    groups = read_groups(captions)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    scores: dict[int, tuple[ScoredRollout, ...]] = {}
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar("scoring"))
        file = stack.enter_context(out.open("w", encoding="utf-8")) if out is not None else None

        def done(place: int, group_scores: tuple[ScoredRollout, ...]) -> None:
            scores[place] = group_scores
            progress(len(scores), len(groups))
            if file is not None:
                file.write(result_row(groups[place], group_scores) + "\n")
                file.flush()

        asyncio.run(score_groups(suite, groups, done))
    say(summary([each for place in sorted(scores) for each in scores[place]]))
    usage = suite.usage
    say(f"judge: {usage.num_requests} requests, {usage.num_cached} from the cache, {usage.usd:.4f} USD")
