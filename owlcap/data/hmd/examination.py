"""Fine-Grained Examination: the fused caption's units, each verified by a model that sees the video and the caption.

The units are CSER's: the same prompt splits a caption here and in the reward. A caption is kept if the share of its
units that the video supports reaches hmd.min_accuracy; a unit that cannot be told from the video is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from owlcap.config_data import DataPipelineRun
from owlcap.data.hmd.fusion import COLUMNS as FUSED_COLUMNS
from owlcap.data.hmd.report import ExaminationReport, write_card
from owlcap.data.outputs import refuse_other_formats
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.estimate import Calls, estimate
from owlcap.data.pipeline.journal import key_of
from owlcap.data.pipeline.output import NUMBER, TEXT, TRUTH, UNITS_TYPE, read_records, write_records
from owlcap.data.pipeline.run import Progress, Say, pending, run_step
from owlcap.data.pipeline.step import Tools, asked, template_of
from owlcap.data.row import VIDEO_MARK
from owlcap.data.rows import Row, write_rows
from owlcap.data.text_file import no_rows
from owlcap.errors import DataError
from owlcap.types import Label, Unit
from rewards.chat import Media, Question
from rewards.staged import (
    CHARACTERS_A_UNIT,
    MIN_UNITS_ALLOWED,
    Statement,
    labels_schema,
    read_labels,
    read_statements,
    units_schema,
)
from rewards.templates import PromptTemplate, load_template, numbered, quoted
from rewards.text import words

MODELS = ("examiner",)
NEEDED = ("id", "video", "motion_caption", "fused_caption", "motion_model", "general_model", "prompts")
COLUMNS = {
    **FUSED_COLUMNS,
    "units": UNITS_TYPE,
    "accuracy": NUMBER,
    "kept": TRUTH,
    "reason": TEXT,
    "examiner": TEXT,
}


class Examination:
    """One fused caption: its units with their verdicts."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._hmd = tools, tools.run.hmd
        self._prompts = _prompts(tools.run)

    async def do(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """See Step."""
        caption = item["fused_caption"]
        clip = Clip(item["id"], item["video"], item.get("start_s"), item.get("end_s"))
        statements = await self._split(caption)
        labels: tuple[Label, ...] = ()
        if statements:
            media, shown = await self._tools.see(clip)
            labels = await self._verify(statements, caption, media, shown)
        units = [Unit(one.text, one.tag, label) for one, label in zip(statements, labels, strict=True)]
        accuracy = sum(unit.label == "supported" for unit in units) / len(units) if units else 0.0
        reason = ""
        if len(units) < self._hmd.min_units:
            reason = "too few units"
        elif accuracy < self._hmd.min_accuracy:
            reason = "accuracy"
        return {
            **item,
            "units": [asdict(unit) for unit in units],
            "accuracy": accuracy,
            "kept": not reason,
            "reason": reason,
            "examiner": self._tools.model("examiner").name,
            "prompts": {**item.get("prompts", {}), **{name: one.hash for name, one in self._prompts.items()}},
        }

    async def _split(self, caption: str) -> tuple[Statement, ...]:
        most = max(MIN_UNITS_ALLOWED, len(words(caption)), len(caption) // CHARACTERS_A_UNIT)
        question = Question(
            kind="units",
            prompt=self._prompts["units"].render(caption=quoted(caption)),
            template_hash=self._prompts["units"].hash,
            read=partial(read_statements, required=False),
            schema=units_schema(most),
        )
        return (await self._tools.model("examiner").ask(question)).value

    async def _verify(
        self, statements: Sequence[Statement], caption: str, media: tuple[Media, ...], shown: str
    ) -> tuple[Label, ...]:
        prompt = self._prompts["verify_units"]
        listed = numbered(tuple(one.text for one in statements))
        question = Question(
            kind="verdicts",
            prompt=prompt.render(shown=shown, caption=quoted(caption), statements=listed),
            template_hash=prompt.hash,
            read=partial(read_labels, count=len(statements)),
            schema=labels_schema(len(statements)),
            media=media,
        )
        return (await self._tools.model("examiner").ask(question)).value


def examine(
    fused: Path,
    out: Path,
    run: DataPipelineRun,
    progress: Progress | None = None,
    *,
    say: Say | None = None,
    dry_run: bool = False,
) -> ExaminationReport | None:
    """Verify fused captions: OUT/examined.jsonl (or .parquet) with all, OUT/train.jsonl with the kept, report, card.

    Args:
        fused: the file that `fuse` wrote, or its folder.
        say: gets what it will cost, before any model is asked.
        dry_run: stop there; gives None.

    Raises:
        DataError: FUSED is no file of `fuse`, or OUT has the file of all clips in another format.
        OwlcapError: see `run_step`.
    """
    path = out / f"examined.{run.output}"
    refuse_other_formats(path)
    fused = _file_of(fused)
    items = _read_fused(fused)
    prompts = _prompts(run)
    key = key_of(
        step="examine",
        prompts={name: one.hash for name, one in prompts.items()},
        models=asked(run, MODELS),
        shown=run.shown.model_dump(),
        hmd=run.hmd.model_dump(exclude={"prompt"}),
    )
    if say is not None:
        todo = pending("examine", items, out, key)
        say(estimate([_calls(item, prompts) for item in todo], todo, run))
    if dry_run:
        return None
    done = run_step("examine", Examination, items, run, MODELS, out, key, progress)
    report = ExaminationReport.of(done, run)
    write_records(path, done.journal.records(done.ids), COLUMNS)
    kept = (record for record in done.journal.records(done.ids) if record["kept"])
    write_rows(out / "train.jsonl", (row_of(record, run.hmd.prompt) for record in kept))
    report.write(out / "report.json")
    write_card(out / "README.md", report, run, fused)
    return report


def _read_fused(path: Path) -> list[dict[str, Any]]:
    items = list(read_records(path))
    if not items:
        raise no_rows(path)
    if lacking := [(item.get("id"), key) for item in items for key in NEEDED if not item.get(key)]:
        raise DataError(
            f"{len({name for name, _ in lacking})} records lack what fuse writes; first: {lacking[0][0]!r} has no "
            f"{lacking[0][1]}.",
            where=str(path),
            allowed="the file of owlcap data fuse",
            cure="run owlcap data fuse again: it takes up what is missing",
        )
    return items


def _calls(item: Mapping[str, Any], prompts: Mapping[str, PromptTemplate]) -> Calls:
    """Two calls: what splits the caption, and what shows the clip with caption and units, which are about as long."""
    caption = len(item["fused_caption"])
    return Calls("examiner", 2, len(prompts["units"].text) + len(prompts["verify_units"].text) + 3 * caption, 1)


def row_of(record: Mapping[str, Any], prompt: str) -> Row:
    """A kept record as a row to train on; the video's path becomes absolute."""
    row = Row(
        id=record["id"],
        messages=[
            {"role": "user", "content": f"{prompt}{VIDEO_MARK}"},
            {"role": "assistant", "content": record["fused_caption"]},
        ],
        videos=[str(Path(record["video"]).absolute())],
        captions={"fused": record["fused_caption"], "motion": record["motion_caption"]},
    )
    if record.get("start_s") is not None:
        row["start_s"] = record["start_s"]
    if record.get("end_s") is not None:
        row["end_s"] = record["end_s"]
    return row


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / f"fused.{ending}" for ending in ("jsonl", "parquet") if (path / f"fused.{ending}").is_file()]
    if len(found) != 1:
        raise DataError(
            f"The folder holds {len(found)} files of fused captions.",
            where=str(path),
            allowed="one of fused.jsonl and fused.parquet",
            cure="name the file, or run owlcap data fuse first",
        )
    return found[0]


def _prompts(run: DataPipelineRun) -> dict[str, PromptTemplate]:
    return {
        "units": load_template("units", frozenset({"caption"})),  # CSER's own
        "verify_units": template_of(run, "verify_units", "shown", "caption", "statements"),
    }
