"""`owlcap data hmi`: source videos to captioned segments with questions, in three steps that each resume clip by clip.

OUT/segments.jsonl     every source video: scenes, and each segment with its figures and why it was dropped
OUT/clips.jsonl        kept clips: summary, key frames, caption, questions, models, prompt hashes (or .parquet)
OUT/train.jsonl        the training mix: all captions, and hmi.qa_share of the questions
OUT/questions.jsonl    every question as a row of its own
OUT/report.json, OUT/README.md
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from owlcap.config_data import DataPipelineRun
from owlcap.data.hmi import annotation, questions
from owlcap.data.hmi.annotation import Annotation, level_of
from owlcap.data.hmi.questions import Asking
from owlcap.data.hmi.report import HmiReport, write_card
from owlcap.data.hmi.segments import Segmentation
from owlcap.data.outputs import refuse_other_formats
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.estimate import CAPTION_CHARACTERS, Calls, estimate
from owlcap.data.pipeline.journal import key_of
from owlcap.data.pipeline.output import JSON, NUMBER, TEXT, TIMES, write_records
from owlcap.data.pipeline.run import Progress, Say, StepRun, pending, ray_for, recorded, run_step
from owlcap.data.pipeline.step import asked
from owlcap.data.row import VIDEO_MARK
from owlcap.data.rows import Row, write_rows
from rewards.templates import PromptTemplate

COLUMNS = {
    **TIMES,
    "level": TEXT,
    "duration_s": NUMBER,
    "key_times_s": JSON,
    "person": JSON,
    "summary": TEXT,
    "caption": TEXT,
    "captioner": TEXT,
    "questions": JSON,
    "writer": TEXT,
    "prompts": JSON,
}
TRUE_OR_FALSE = "True or false: {}"


@dataclass(frozen=True, slots=True)
class _Keys:
    """What the records of the three steps depend on."""

    segments: str
    captions: str
    questions: str

    @classmethod
    def of(cls, run: DataPipelineRun, prompts: Mapping[str, PromptTemplate]) -> _Keys:
        hmi = run.hmi
        hashes = {name: one.hash for name, one in prompts.items()}
        segments = key_of(
            step="segments",
            scenes=hmi.scenes.model_dump(),
            person=hmi.person.model_dump(),
            fps=(hmi.scan_fps, hmi.pose_fps),
            words=hmi.caption_words,
            motion=run.motion.model_dump(include={"pose", "key_frames", "extract"}),
        )
        captions = key_of(
            key=segments,
            step="captions",
            prompts={name: hashes[name] for name in annotation.prompts_of(run)},
            models=asked(run, annotation.MODELS),
            shown=run.shown.model_dump(),
            levels=(hmi.fine_max_s, hmi.whole_video),
        )
        mix = hmi.model_dump(include={"questions_a_clip", "open_share", "true_share", "seed"})
        models = asked(run, questions.MODELS)
        return cls(
            segments,
            captions,
            key_of(key=captions, step="questions", prompts=hashes, models=models, mix=mix),
        )


def make_hmi(
    clips: Sequence[Clip],
    out: Path,
    run: DataPipelineRun,
    progress: Progress | None = None,
    *,
    say: Say | None = None,
    dry_run: bool = False,
) -> HmiReport | None:
    """Run what is not done yet, and write all files anew.

    Args:
        say: gets what it will cost, when the videos are cut and before any model is asked.
        dry_run: only say that, without cutting any; gives None.

    Raises:
        DataError: OUT has the file of clips in another format.
        OwlcapError: see `run_step`.
    """
    path = out / f"clips.{run.output}"
    refuse_other_formats(path)
    prompts = annotation.prompts_of(run) | questions.prompts_of(run)
    keys = _Keys.of(run, prompts)
    sources = [asdict(clip) for clip in clips]
    if dry_run:
        if say is not None:
            say(_dry_run(sources, out, keys, run, prompts))
        return None
    with ray_for(run):
        cut = run_step("segments", Segmentation, sources, run, (), out, keys.segments, progress)
        write_records(out / "segments.jsonl", cut.journal.records(cut.ids), {})
        items = [item for record in cut.journal.records(cut.ids) for item in _kept(record, run)]
        if say is not None:
            say(_cost(items, out, keys, run, prompts))
        told = run_step("captions", Annotation, items, run, annotation.MODELS, out, keys.captions, progress)
        captioned = list(told.journal.records(told.ids))
        done = run_step("questions", Asking, captioned, run, questions.MODELS, out, keys.questions, progress)
    report = HmiReport.of(cut, told, done)
    write_records(path, done.journal.records(done.ids), COLUMNS)
    write_rows(out / "train.jsonl", _mix(done, run))
    write_rows(out / "captions.jsonl", (_caption(record, run) for record in done.journal.records(done.ids)))
    write_rows(out / "questions.jsonl", _all_questions(done))
    report.write(out / "report.json")
    write_card(out / "README.md", report, run, {name: one.hash for name, one in prompts.items()})
    return report


def _dry_run(
    sources: Sequence[Mapping[str, Any]],
    out: Path,
    keys: _Keys,
    run: DataPipelineRun,
    prompts: Mapping[str, PromptTemplate],
) -> str:
    """The cost as far as it is known: videos that are not cut yet count as one clip each."""
    cut = recorded("segments", sources, out, keys.segments)
    items = [item for record in cut.records(source["id"] for source in sources) for item in _kept(record, run)]
    uncut = [source for source in sources if source["id"] not in cut]
    cost = _cost([*items, *uncut], out, keys, run, prompts)
    if not uncut:
        return cost
    note = "not cut into clips yet, which asks no model; the figures are as if each were one clip"
    return f"videos    {len(sources):,}, {len(uncut):,} of them {note}\n{cost}"


def _cost(
    items: Sequence[Mapping[str, Any]],
    out: Path,
    keys: _Keys,
    run: DataPipelineRun,
    prompts: Mapping[str, PromptTemplate],
) -> str:
    """What captions and questions that are not there yet will cost."""
    done = recorded("captions", items, out, keys.captions)
    captioned = list(done.records(item["id"] for item in items))
    to_caption = [item for item in items if item["id"] not in done]
    to_ask = [*to_caption, *pending("questions", captioned, out, keys.questions)]
    told = CAPTION_CHARACTERS + sum(len(prompts[name].text) for name in annotation.prompts_of(run))
    asked_for = CAPTION_CHARACTERS + len(prompts["hmi_questions"].text)
    num = len(to_caption)
    calls = [Calls("writer", len(to_ask), len(to_ask) * asked_for)]
    if num:
        calls.insert(0, Calls("general_model", 2 * num, num * told, 2 * num))
    return estimate(calls, to_ask, run)


def _kept(record: Mapping[str, Any], run: DataPipelineRun) -> Iterator[dict[str, Any]]:
    """Clips to caption of one source video: its kept segments, and the video itself where it has any."""
    kept = [segment for segment in record["segments"] if segment["kept"]]
    figures = ("single_share", "box_share", "keypoints", "face_points", "displacement")
    for segment in kept:
        yield {
            "id": segment["id"],
            "video": record["video"],
            "start_s": segment["start_s"],
            "end_s": segment["end_s"],
            "level": level_of(segment["duration_s"], run.hmi),
            "duration_s": segment["duration_s"],
            "key_frames": segment["key_frames"],
            "key_times_s": segment["key_times_s"],
            "person": {name: segment[name] for name in figures},
        }
    if kept and run.hmi.whole_video:
        yield {
            "id": f"{record['id']}-whole",
            "video": record["video"],
            "start_s": None,
            "end_s": None,
            "level": "whole",
            "duration_s": record["scenes"][-1][1],
            "key_frames": [],
            "key_times_s": [],
            "person": {},
        }


def _mix(done: StepRun, run: DataPipelineRun) -> Iterator[Row]:
    """All captions, and a share of the questions by chance: the same ones for a seed."""
    for record in done.journal.records(done.ids):
        yield _caption(record, run)
        for number, row in enumerate(_questions(record)):
            if random.Random(f"{run.hmi.seed}:{record['id']}:{number}").random() < run.hmi.qa_share:
                yield row


def _caption(record: Mapping[str, Any], run: DataPipelineRun) -> Row:
    return _row(record, record["id"], run.hmi.prompt, record["caption"])


def _all_questions(done: StepRun) -> Iterator[Row]:
    for record in done.journal.records(done.ids):
        yield from _questions(record)


def _questions(record: Mapping[str, Any]) -> Iterator[Row]:
    for number, pair in enumerate(record["questions"], start=1):
        question = pair["question"] if pair["kind"] == "open" else TRUE_OR_FALSE.format(pair["question"])
        yield _row(record, f"{record['id']}-q{number}", question, pair["answer"])


def _row(record: Mapping[str, Any], name: str, question: str, answer: str) -> Row:
    row = Row(
        id=name,
        messages=[
            {"role": "user", "content": f"{question.replace(VIDEO_MARK, ' ')}{VIDEO_MARK}"},
            {"role": "assistant", "content": answer},
        ],
        videos=[str(Path(record["video"]).absolute())],
    )
    if record["start_s"] is not None:
        row["start_s"], row["end_s"] = record["start_s"], record["end_s"]
    return row
