"""`owlcap caption`: what a policy says of a video."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.console import check_out, say, show_error
from owlcap.errors import ConfigError

if TYPE_CHECKING:
    from owlcap.inference.caption_pairs import PairOptions

PAIRS = "Motion Synergetic Decoding"


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
    prompt: Annotated[str | None, typer.Option(help="What to ask; else the question it was trained with.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="The longest caption; else the policy's own.")] = None,
    msd: Annotated[bool, typer.Option("--msd", help="By both branches: Motion Synergetic Decoding.")] = False,
    overlays: Annotated[
        Path | None,
        typer.Option(
            help="The video's overlays: a folder of pictures; else cached or made now.", rich_help_panel=PAIRS
        ),
    ] = None,
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
    if not msd:
        given = {"--overlays": overlays, "--explain": explain, "--evidence": evidence, "--prune": prune, "--tau": tau}
        if used := [name for name, value in given.items() if value] + ["--temperature"] * bool(temperature):
            raise ConfigError(f"{used[0]} belongs to Motion Synergetic Decoding", cure="add --msd")
        from owlcap.inference.caption import caption_video

        say(caption_video(model, video, prompt=prompt, max_new_tokens=max_new_tokens))
        return
    check_out(evidence)
    from owlcap.inference.caption_pairs import PairOptions

    options = PairOptions(
        decoding=_decoding(model, prune, tau),
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        engine=engine.value,
        explain=explain or evidence is not None,
    )
    _caption_pairs(model, video, overlays, prompt, options, explain, evidence)


def _decoding(model: Path, prune: PruneName | None, tau: float | None):
    """The policy's settings of MSD with what the command line says; None where it says nothing."""
    from owlcap.config_motion import DecodingSection
    from owlcap.inference.settings import find_settings

    changes = {"prune": prune and prune.value, "tau": tau}
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        return None
    if tau is not None and tau <= 0:
        raise ConfigError(f"tau is {tau}", allowed="above 0")
    known = find_settings(model)
    section = known.motion.decoding if known else DecodingSection()
    return DecodingSection.model_validate({**section.model_dump(), **changes})


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
            error = getattr(errors, result.error, errors.DataError)(result.reason, where=result.sample.id)
            if one_video:
                raise error
            show_error(error)
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
