"""`owlcap caption`: what a policy says of a video."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.console import check_out, say, show_error, stderr_console
from owlcap.errors import ConfigError

if TYPE_CHECKING:
    from owlcap.inference.caption_pairs import PairOptions

PAIRS = "Motion Synergetic Decoding"
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Motion settings that win over the file.", show_default=False),
]
Config = Annotated[
    str | None,
    typer.Option(help="A run's configuration or a YAML with motion settings, over those that the policy keeps."),
]


class EngineName(StrEnum):
    """What decodes pairs."""

    transformers = "transformers"
    vllm = "vllm"


class PruneName(StrEnum):
    """Prunings of motion.decoding."""

    relative = "relative"
    literal = "literal"
    union = "union"


def caption(
    model: Annotated[Path, typer.Argument(help="A model folder, such as an exported one.")],
    video: Annotated[Path, typer.Argument(help="A video file; with --msd also a data file (.jsonl), clip by clip.")],
    overrides: Overrides = None,
    config: Config = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask; else the question it was trained with.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="The longest caption; else the policy's own.")] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="The video's overlays: a folder of pictures; else cached or made now.")
    ] = None,
    msd: Annotated[bool, typer.Option("--msd", help="By both branches: Motion Synergetic Decoding.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the evidence of every token.", rich_help_panel=PAIRS)
    ] = False,
    evidence: Annotated[
        Path | None, typer.Option(help="Write the evidence here, one JSON object a token.", rich_help_panel=PAIRS)
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="What decodes.", rich_help_panel=PAIRS)] = EngineName.transformers,
    prune: Annotated[PruneName | None, typer.Option(help="Which tokens may be said.", rich_help_panel=PAIRS)] = None,
    temperature: Annotated[float, typer.Option(help="0: greedy; above: calibrated.", rich_help_panel=PAIRS)] = 0.0,
    tau: Annotated[float | None, typer.Option(help="Of calibrated sampling.", rich_help_panel=PAIRS)] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.", rich_help_panel=PAIRS)] = 0,
) -> None:
    """Caption one video, greedily; with --msd by the visual and the motion branch together."""
    from owlcap.inference.overlays import policy_motion

    if not msd:
        given = {"--explain": explain, "--evidence": evidence, "--prune": prune, "--tau": tau}
        if used := [name for name, value in given.items() if value] + ["--temperature"] * bool(temperature):
            raise ConfigError(f"{used[0]} belongs to Motion Synergetic Decoding", cure="add --msd")
        if video.suffix == ".jsonl":
            raise ConfigError("a data file is captioned with --msd", where=str(video), cure="add --msd")
        from owlcap.inference.caption import caption_video

        motion = policy_motion(model, config, overrides or ())
        text = caption_video(
            model, video, prompt=prompt, max_new_tokens=max_new_tokens, motion=motion, overlays=overlays, note=_note
        )
        say(text)
        return
    check_out(evidence)
    from owlcap.inference.caption_pairs import PairOptions

    motion = policy_motion(model, config, [*(overrides or ()), *_decoding(prune, tau)])
    options = PairOptions(
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        motion=motion,
        engine=engine.value,
        explain=explain or evidence is not None,
    )
    _caption_pairs(model, video, overlays, prompt, options, explain, evidence)


def _note(text: str) -> None:
    stderr_console().print(f"note: {text}", markup=False)


def _decoding(prune: PruneName | None, tau: float | None) -> list[str]:
    """The options of MSD as overrides."""
    given = {"prune": prune and prune.value, "tau": tau}
    return [f"decoding.{key}={value}" for key, value in given.items() if value is not None]


def _caption_pairs(
    model: Path,
    video: Path,
    overlays: Path | None,
    prompt: str | None,
    options: PairOptions,
    explain: bool,
    evidence: Path | None,
) -> None:
    """Print captions as they come. Exit code 1: some clips of a data file gave none, and were named."""
    from owlcap import errors
    from owlcap.inference.caption_pairs import caption_pairs
    from owlcap.inference.explain import evidence_lines, evidence_table
    from owlcap.types import RolloutFailure

    one_video, num_failed, lines = video.suffix != ".jsonl", 0, ""
    for result in caption_pairs(model, video, overlays=overlays, prompt=prompt, options=options):
        if isinstance(result, RolloutFailure):
            kind = getattr(errors, result.error, errors.DataError)
            if one_video:
                raise kind(result.reason)  # which says where
            show_error(kind(f"{result.sample.id}: {result.reason}"))
            num_failed += 1
            continue
        text = result.completion.text.strip()
        say(text if one_video else f"{result.sample.id}: {text}")
        if explain:
            say("\n" + evidence_table(result.evidence) + "\n")
        lines += evidence_lines(result.evidence)
    if evidence is not None:
        evidence.write_text(lines, encoding="utf-8")
    if num_failed:
        raise typer.Exit(1)
