"""Overlays of whole data sets: a Ray Data pipeline of motion actors, and the data file that names what they made."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.data

from motion.actor import MotionActor, plug_ins
from motion.extract import Extracted, MotionFailure, MotionResult
from owlcap.config_motion import MotionSection
from owlcap.data.rows import scan_rows, write_rows
from owlcap.errors import DataError, OwlcapError, PlacementError
from owlcap.types import Sample

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What became of a data set's clips; rows that share a clip are one."""

    results: dict[str, MotionResult]  # by sample id

    @property
    def failures(self) -> list[MotionFailure]:
        """Of each clip that failed, once."""
        return list({id(r): r for r in self.results.values() if isinstance(r, MotionFailure)}.values())

    def with_failures(self, failures: Sequence[MotionFailure]) -> ExtractReport:
        """The same with rows that could not even be read."""
        return ExtractReport({**self.results, **{failure.sample.id: failure for failure in failures}})

    def summary(self) -> list[str]:
        """Lines for the terminal: clips, key frames, people."""
        clips = list({id(r): r for r in self.results.values()}.values())
        done = [clip for clip in clips if isinstance(clip, Extracted)]
        drawn = sum(sum(clip.record.drawn) for clip in done)
        frames = sum(len(clip.record.frame_indices) for clip in done)
        several = sum(clip.record.most_people > 1 for clip in done)
        return [
            f"{len(done)} of {len(clips)} clips have overlays ({sum(clip.found for clip in done)} had them before)",
            f"{frames} key frames, {drawn} with a body drawn in; {several} clips show several people",
        ]


def read_clips(data: Path) -> tuple[dict[int, Sample], list[MotionFailure]]:
    """The clips of a data file by line number, and its bad rows as failures that are named after their lines.

    Raises:
        DataError: the file cannot be read, or has no good row.
    """
    clips: dict[int, Sample] = {}
    bad: dict[int, DataError] = {}
    for number, row in scan_rows(data, clips_only=True):
        if isinstance(row, DataError):
            bad[number] = row
        else:
            clips[number] = row
    if not clips:
        raise next(iter(bad.values()))
    lines = {number: Sample(f"{data.name}:{number}", "", "", "", "") for number in bad}
    return clips, [MotionFailure(lines[number], type(error).__name__, str(error)) for number, error in bad.items()]


def extract_data(samples: Sequence[Sample], motion: MotionSection, progress: Progress | None = None) -> ExtractReport:
    """Put the overlays of all clips into the cache, with `extract.num_actors` actors; Ray must be running.

    What is in the cache already is not made again, so that a run that was stopped goes on.

    Raises:
        PlacementError: the cluster cannot hold one actor.
        ConfigError, ModelError: of the settings, and of model files.
    """
    clips: dict[tuple[str, float | None, float | None], list[Sample]] = {}
    for sample in samples:
        clips.setdefault((sample.video, sample.start_s, sample.end_s), []).append(sample)
    rows = [replace(group[0], caption="", reference="", facts=(), questions=()) for group in clips.values()]
    _check_place(motion)
    results: dict[str, MotionResult] = {}
    for done, result in enumerate(_pipeline(rows, motion), start=1):
        sample = result.sample
        for other in clips[sample.video, sample.start_s, sample.end_s]:
            results[other.id] = result
        if progress is not None:
            progress(done, len(rows))
    return ExtractReport({sample.id: results[sample.id] for sample in samples})


def _pipeline(rows: list[Sample], motion: MotionSection) -> Iterator[MotionResult]:
    """Results as they get done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the driver shows its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    at_once = motion.extract.clips_at_once
    blocks = max(1, -(-len(rows) // at_once))

    items = [{"sample": pickle.dumps(row)} for row in rows]
    results = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        MotionActor,  # type: ignore[arg-type]
        fn_constructor_args=(motion, plug_ins(motion)),
        batch_size=at_once,
        compute=ray.data.ActorPoolStrategy(size=min(motion.extract.num_actors, blocks)),
        num_cpus=motion.extract.cpus_per_actor,
        num_gpus=motion.extract.gpus_per_actor,
    )
    for row in results.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, OwlcapError):
            raise result
        yield result


def _check_place(motion: MotionSection) -> None:
    """Ray Data waits without end for resources that nobody has."""
    settings, total = motion.extract, ray.cluster_resources()
    for key, each in (("CPU", settings.cpus_per_actor), ("GPU", settings.gpus_per_actor)):
        wanted = each * settings.num_actors
        if wanted > total.get(key, 0):
            raise PlacementError(
                f"{settings.num_actors} motion actors need {wanted:g} {key}",
                where="motion.extract.num_actors and its cpus_per_actor, gpus_per_actor",
                allowed=f"what the cluster has: {total.get(key, 0):g} {key}",
                cure="lower them, or add nodes",
            )


def write_with_overlays(data: Path, report: ExtractReport, clips: Mapping[int, Sample], out: Path) -> None:
    """Copy rows with the key `overlays` in each that has them; relative paths of videos become absolute.

    Args:
        clips: by line number; other lines are left out.

    Raises:
        DataError: a file cannot be read or written.
    """
    try:
        lines = data.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"the data file cannot be read: {error.strerror}", where=str(data)) from error
    rows: list[Any] = []
    for number, sample in clips.items():
        result = report.results[sample.id]
        made = [str(path) for path in result.overlays] if isinstance(result, Extracted) else []
        row = {**json.loads(lines[number - 1]), "videos": [str(Path(sample.video).absolute())]}
        row.pop("overlays", None)
        rows.append({**row, "overlays": made} if made else row)
    write_rows(out, rows)


def write_failures(report: ExtractReport, path: Path) -> None:
    """Write the clips that failed as JSONL: id, video, error, reason."""
    rows: list[Any] = [
        {"id": f.sample.id, "video": f.sample.video, "error": f.error, "reason": f.reason} for f in report.failures
    ]
    write_rows(path, rows)
