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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from owlcap.config_data import DataPipelineRun
from owlcap.data.hmi import annotation, questions
from owlcap.data.hmi.annotation import Annotation, level_of
from owlcap.data.hmi.questions import Asking
from owlcap.data.hmi.report import HmiReport, write_card
from owlcap.data.hmi.segments import Segmentation
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.journal import key_of
from owlcap.data.pipeline.output import JSON, NUMBER, TEXT, TIMES, write_records
from owlcap.data.pipeline.run import Progress, StepRun, ray_for, run_step
from owlcap.data.pipeline.step import asked
from owlcap.data.rows import VIDEO_MARK, Row, write_rows

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


def make_hmi(clips: Sequence[Clip], out: Path, run: DataPipelineRun, progress: Progress | None = None) -> HmiReport:
    """Run what is not done yet, and write all files anew.

    Raises:
        OwlcapError: see `run_step`.
    """
    hmi = run.hmi
    judged_by = {
        "scenes": hmi.scenes.model_dump(),
        "person": hmi.person.model_dump(),
        "fps": (hmi.scan_fps, hmi.pose_fps),
        "words": hmi.caption_words,
        "motion": run.motion.model_dump(include={"pose", "key_frames", "extract"}),
    }
    with ray_for(run):
        key = key_of(step="segments", **judged_by)
        cut = run_step("segments", Segmentation, [asdict(clip) for clip in clips], run, (), out, key, progress)
        write_records(out / "segments.jsonl", cut.journal.records(cut.ids), {})
        items = [item for record in cut.journal.records(cut.ids) for item in _kept(record, run)]
        prompts = {name: one.hash for name, one in (annotation.prompts_of(run) | questions.prompts_of(run)).items()}
        key = key_of(
            key=key,
            step="captions",
            prompts={name: prompts[name] for name in annotation.prompts_of(run)},
            models=asked(run, annotation.MODELS),
            shown=run.shown.model_dump(),
            levels=(hmi.fine_max_s, hmi.whole_video),
        )
        told = run_step("captions", Annotation, items, run, annotation.MODELS, out, key, progress)
        mix = hmi.model_dump(include={"questions_a_clip", "open_share", "true_share", "seed"})
        key = key_of(key=key, step="questions", prompts=prompts, models=asked(run, questions.MODELS), mix=mix)
        captioned = list(told.journal.records(told.ids))
        done = run_step("questions", Asking, captioned, run, questions.MODELS, out, key, progress)
    report = HmiReport.of(cut, told, done)
    write_records(out / f"clips.{run.output}", done.journal.records(done.ids), COLUMNS)
    write_rows(out / "train.jsonl", _mix(done, run))
    write_rows(out / "captions.jsonl", (_caption(record, run) for record in done.journal.records(done.ids)))
    write_rows(out / "questions.jsonl", _all_questions(done))
    report.write(out / "report.json")
    write_card(out / "README.md", report, run, prompts)
    return report


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
