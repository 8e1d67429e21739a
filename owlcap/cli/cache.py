"""`owlcap cache`: the judges' replies that are kept on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import say

app = typer.Typer(help="Judges' replies kept on this machine.", no_args_is_help=True)
Where = Annotated[Path | None, typer.Option(help="The cache file; without it the one that is used by default.")]


@app.command("stats")
def stats(path: Where = None) -> None:
    """How many replies are kept, of which models, and how large the file is."""
    import time

    from rewards.cache import cache_stats

    found = cache_stats(path or _default())
    say(f"{found.path}: {found.num_replies:,} replies, {found.num_bytes / 2**20:.1f} MiB")
    for model, count in found.by_model.items():
        say(f"  {model}: {count:,}")
    if found.oldest is not None:
        say(f"oldest: {time.strftime('%Y-%m-%d %H:%M', time.localtime(found.oldest))}")


@app.command("clear")
def clear(
    path: Where = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False
) -> None:
    """Remove the cache file; judges are asked again."""
    from rewards.cache import cache_stats, clear_cache

    file = path or _default()
    found = cache_stats(file)
    if not yes:
        typer.confirm(f"remove {found.num_replies:,} replies in {file}?", abort=True)
    say(f"freed {clear_cache(file) / 2**20:.1f} MiB")


def _default() -> Path:
    from owlcap.config import CacheSection
    from rewards.cache import cache_path

    return cache_path(CacheSection())
