"""`owlcap report`: a run as one HTML file that needs no server and no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from owlcap.config import CacheSection, MotionSection, VideoSection
from owlcap.errors import ConfigError
from owlcap.evaluation.pages import environment, render_page, write_page
from owlcap.evaluation.run_report.choosing import KINDS, Chosen, choose_groups, spread_out
from owlcap.evaluation.run_report.curves import all_figures, panels
from owlcap.evaluation.run_report.frames import FrameReader, Strip
from owlcap.evaluation.run_report.groups import group_view, reply_ids
from owlcap.evaluation.run_report.reading import RunContents, read_rollouts, read_run, section_of
from owlcap.evaluation.run_report.summary import evaluation_tables, summary
from owlcap.evaluation.run_report.timing import timing
from rewards.cache import cache_path
from rewards.cache_file import find_replies

FILE_NAME = "report.html"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """How much of a run's captions is shown.

    Attributes:
        steps: those whose captions are shown; None: `num_steps` at even distances.
        groups_a_step: at most; the best, the worst and the odd ones come first.
        frames: whether clips are decoded for a few frames each.
        max_mib: of groups in the page; what is beyond it is left out, and said.
    """

    steps: tuple[range, ...] | None = None
    num_steps: int = 12
    groups_a_step: int = 4
    frames: bool = True
    max_mib: float = 8.0


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """The file, and what it says about missing or broken parts of the run."""

    path: Path
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """The groups' part of the page."""

    cards: tuple[Markup, ...]
    steps: tuple[int, ...]
    num_left_out: int
    problems: tuple[str, ...]


def write_run_report(
    run: Path,
    out: Path | None = None,
    options: ReportOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenReport:
    """Write the page of a run, to report.html in its folder unless `out` names another file.

    Raises:
        ConfigError: there is no such run, or the file cannot be written.
    """
    contents = read_run(run)
    env = environment(Path(__file__).parent)
    shown = _groups(contents, options or ReportOptions(), env, progress or (lambda done, total: None))
    problems = (*contents.problems, *shown.problems)
    context = {
        "run": contents,
        "summary": summary(contents),
        "problems": problems,
        "panels": panels(contents),
        "figures": all_figures(contents.figures),
        "timing": timing(contents.figures),
        "tables": evaluation_tables(contents),
        "cards": shown.cards,
        "steps": shown.steps,
        "num_left_out": shown.num_left_out,
        "kinds": KINDS,
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    path = out or contents.dir.path / FILE_NAME
    try:
        write_page(render_page(env, "run", context), path)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written: {error.strerror}", where=str(path), cure="name another file with --out"
        ) from error
    return WrittenReport(path, problems)


def _groups(
    contents: RunContents, options: ReportOptions, env: Environment, progress: Callable[[int, int], None]
) -> _Shown:
    problems: list[str] = []
    steps = _steps(contents, options, problems)
    chosen: list[tuple[int, Chosen]] = []  # with its place within its step
    for step in steps:
        rows, wrong = read_rollouts(contents.dir.rollouts_file(step))
        problems += wrong
        chosen += enumerate(choose_groups(rows, options.groups_a_step))
    chosen.sort(key=lambda one: one[0])  # the first of every step before the second of any: what the room is given to
    replies = _replies(contents, [one for _, one in chosen], problems)
    video, problem = section_of(contents, VideoSection, "video")
    problems += [problem] if problem else []
    motion, problem = section_of(contents, MotionSection, "motion")
    problems += [problem] if problem else []
    cards: list[tuple[int, int, Markup]] = []
    room = options.max_mib * MIB
    template = env.get_template("group.html.j2")
    reader = FrameReader(video, motion) if options.frames and chosen else None
    try:
        for number, (place, one) in enumerate(chosen):
            strip = reader.strip(one.row) if reader else Strip(())
            card = template.render({"group": group_view(one, strip, replies), "kinds": KINDS})
            room -= len(card.encode(errors="replace"))
            if room < 0:
                break
            cards.append((one.row.step, place, Markup(card)))
            progress(number + 1, len(chosen))
    finally:
        if reader:
            reader.close()
    if chosen and not cards:
        problems.append(f"no group fits into {options.max_mib:g} MiB: give more with --max-mib")
    cards.sort(key=lambda card: card[:2])
    return _Shown(tuple(card for *_, card in cards), steps, len(chosen) - len(cards), tuple(problems))


def _steps(contents: RunContents, options: ReportOptions, problems: list[str]) -> tuple[int, ...]:
    there = contents.rollout_steps
    if not there and contents.config.get("kind") != "sft":
        problems.append("rollouts/ has no captions: only figures are shown")
    if options.steps is None:
        return spread_out(there, options.num_steps)
    for wanted in options.steps:
        if not any(step in wanted for step in there):
            last = f" to {wanted[-1]}" if len(wanted) > 1 else ""
            problems.append(f"rollouts/ has no captions of step {wanted[0]}{last}")
    return tuple(step for step in there if any(step in wanted for wanted in options.steps))


def _replies(contents: RunContents, chosen: Sequence[Chosen], problems: list[str]) -> dict[str, str]:
    """Texts of the judges' replies, from the cache of this machine."""
    ids = reply_ids(chosen)
    if not ids:
        return {}
    settings, problem = section_of(contents, CacheSection, "rewards", "cache")
    problems += [problem] if problem else []
    try:
        return find_replies(cache_path(settings), ids)
    except ConfigError as error:
        problems.append(f"judges' replies are shown by their ids only: {error.what}")
        return {}
