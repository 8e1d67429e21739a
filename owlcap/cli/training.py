"""`owlcap sft` and `owlcap rl`: training from a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.console import say, show_error
from owlcap.cli.report import write_and_tell
from owlcap.errors import ConfigError, OwlcapError

if TYPE_CHECKING:
    from owlcap.config import RlRun, SftRun

Config = Annotated[str, typer.Argument(help="A YAML file, or a name from configs/ (toy_sft).", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the file.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the settings and what the run would need.")]


def sft(config: Config, overrides: Overrides = None, resume: Resume = False, dry_run: DryRun = False) -> None:
    """Supervised fine-tuning on captions."""
    from owlcap.config import SftRun

    run = _load(config, overrides)
    if not isinstance(run, SftRun):
        raise _wrong_kind(config, run, "sft")
    if dry_run:
        from owlcap.config_io import dump
        from sft.plan import render_plan

        say(f"{dump(run).rstrip()}\n\n{render_plan(run)}")
        return
    from sft.train import run_sft

    say(f"model: {run_sft(run, resume=resume)}")


def rl(config: Config, overrides: Overrides = None, resume: Resume = False, dry_run: DryRun = False) -> None:
    """Reinforcement learning (GRPO) with caption rewards."""
    from owlcap.config import RlRun

    run = _load(config, overrides)
    if not isinstance(run, RlRun):
        raise _wrong_kind(config, run, "rl")
    if dry_run:
        from owlcap.config_io import dump
        from rl.checks import check_settings
        from rl.placement import render_plan

        check_settings(run)
        say(f"{dump(run).rstrip()}\n\n{render_plan(run).rstrip()}")
        return
    from rl.trainer import run_rl

    model = run_rl(run, resume=resume)
    say(f"model: {model}")
    try:
        say(write_and_tell(model.parent))
    except OwlcapError as error:  # the run itself is complete
        show_error(error)


def _load(config: str, overrides: list[str] | None) -> SftRun | RlRun:
    from owlcap.config_io import load_run

    return load_run(config, overrides or ())


def _wrong_kind(config: str, run: SftRun | RlRun, wanted: str) -> ConfigError:
    return ConfigError(
        f"this configuration is for `owlcap {run.kind}`, not for `owlcap {wanted}`",
        where=config,
        cure=f"owlcap {run.kind} {config}",
    )
