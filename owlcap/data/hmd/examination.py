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
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.journal import key_of
from owlcap.data.pipeline.output import NUMBER, TEXT, TRUTH, UNITS_TYPE, read_records, write_records
from owlcap.data.pipeline.run import Progress, run_step
from owlcap.data.pipeline.step import Tools, asked, template_of
from owlcap.data.rows import VIDEO_MARK, Row, write_rows
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


def examine(fused: Path, out: Path, run: DataPipelineRun, progress: Progress | None = None) -> ExaminationReport:
    """Verify fused captions: OUT/examined.jsonl (or .parquet) with all, OUT/train.jsonl with the kept, report, card.

    Args:
        fused: the file that `fuse` wrote, or its folder.

    Raises:
        OwlcapError: see `run_step`.
    """
    fused = _file_of(fused)
    items = list(read_records(fused))
    if missing := [item["id"] for item in items if not item.get("fused_caption")]:
        raise DataError(
            f"{len(missing)} records have no fused caption, first {missing[0]!r}.",
            where=str(fused),
            allowed="the file of owlcap data fuse",
            cure="run owlcap data fuse again: it takes up what is missing",
        )
    prompts = {name: one.hash for name, one in _prompts(run).items()}
    key = key_of(
        step="examine",
        prompts=prompts,
        models=asked(run, MODELS),
        shown=run.shown.model_dump(),
        hmd=run.hmd.model_dump(exclude={"prompt"}),
    )
    done = run_step("examine", Examination, items, run, MODELS, out, key, progress)
    report = ExaminationReport.of(done, run)
    write_records(out / f"examined.{run.output}", done.journal.records(done.ids), COLUMNS)
    kept = (record for record in done.journal.records(done.ids) if record["kept"])
    write_rows(out / "train.jsonl", (row_of(record, run.hmd.prompt) for record in kept))
    report.write(out / "report.json")
    write_card(out / "README.md", report, run, prompts, fused)
    return report


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
