"""Makes the toy data set on disk: mp4 files, three JSONL splits, and a record of what they were made from.

    out/
      world.json                     the parameters; written last, so that its presence means complete
      train.jsonl validation.jsonl test.jsonl
      videos/train-000000.mp4 ...

Everything is written to a hidden folder beside `out`, which is renamed at the end: `out` is whole or absent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from owlcap.data.row import VIDEO_MARK
from owlcap.data.rows import FactRow, Row, write_rows
from owlcap.data.toy.captions import write_captions
from owlcap.data.toy.scene import SPLITS, Split, make_scene
from owlcap.errors import DataError

WORLD_VERSION = 1  # raised when the same parameters give other clips or captions
TOY_PROMPTS = (
    "Describe the video in detail.",
    "What happens in this video? Mention the movements and the surroundings.",
    "Write a caption for this clip.",
    "Tell me what you see, in order.",
)
CHUNK = 32  # clips a worker takes at a time

Progress = Callable[[int, int], None]  # (clips done, clips in all)


@dataclass(frozen=True, slots=True)
class ToyVideo:
    """Size and timing of the clips: pixels (multiples of 28 fit the vision tower), frames, frames a second."""

    width: int = 56
    height: int = 56
    num_frames: int = 12
    fps: float = 6.0


@dataclass(frozen=True, slots=True)
class ToyWorld:
    """Where a finished toy data set lies."""

    root: Path
    train: Path
    validation: Path
    test: Path
    videos: Path


@dataclass(frozen=True, slots=True)
class _Job:
    """One clip to make."""

    split: Split
    index: int
    seed: int
    video: ToyVideo
    folder: str


def make_toy_world(
    out: Path,
    *,
    num_train: int,
    num_validation: int,
    num_test: int,
    seed: int,
    workers: int = 1,
    progress: Progress | None = None,
    video: ToyVideo = ToyVideo(),
) -> ToyWorld:
    """Make the toy data set in `out`, or return at once when it is there, made from the same parameters.

    The same parameters give the same scenes and captions on every machine, with any number of workers.
    Rows: the assistant message is the brief caption, captions.full states every fact, and so does `reference`.

    Args:
        out: the folder; made with its parents.
        num_train, num_validation, num_test: clips of each split; a split of 0 has no file content but the file.
        seed: of scenes and captions.
        workers: processes; 1 works in this process.
        progress: called in this process as clips get done.
        video: size and timing of the clips.

    Raises:
        DataError: `out` holds something else, a parameter is impossible, or the disk cannot be written.
    """
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    _check(counts, workers, video)
    parameters = {"version": WORLD_VERSION, "seed": seed, **counts, "video": asdict(video)}
    out = Path(out)
    if out.exists():
        return _existing(out, parameters)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        folder = Path(tempfile.mkdtemp(prefix=_partial_prefix(out) + f"{os.getpid()}-", dir=out.parent))
        try:
            _fill(folder, counts, seed, video, workers, progress)
            (folder / "world.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
            folder.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
            try:
                folder.rename(out)
            except OSError:
                if not out.exists():
                    raise
                return _existing(out, parameters)  # another process made it meanwhile
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # gone already when all went well
    except OSError as error:
        raise DataError(
            f"The toy data set cannot be written: {error.strerror or error}.",
            where=str(out),
            cure="free some space or choose a folder that can be written",
        ) from error
    return _paths(out)


def _paths(out: Path) -> ToyWorld:
    return ToyWorld(out, out / "train.jsonl", out / "validation.jsonl", out / "test.jsonl", out / "videos")


def _check(counts: dict[str, int], workers: int, video: ToyVideo) -> None:
    for name, count in counts.items():
        if count < 0:
            raise DataError(f"num_{name} is {count}.", allowed="0 or more clips", cure=f"raise num_{name}")
    if not any(counts.values()):
        raise DataError("No clips are asked for.", allowed="at least one clip", cure="raise num_train")
    if workers < 1:
        raise DataError(f"workers is {workers}.", allowed="1 or more processes", cure="use workers=1")
    if video.width < 28 or video.height < 28 or video.width < video.height:
        raise DataError(
            f"The clips would have {video.width} x {video.height} pixels.",
            allowed="at least 28 x 28, not higher than wide (arms must fit)",
            cure="use 56 x 56",
        )
    if video.num_frames < 6 or not 0 < video.fps <= 120:
        raise DataError(
            f"The clips would have {video.num_frames} frames at {video.fps} a second.",
            allowed="at least 6 frames (two an action), more than 0 and at most 120 a second",
            cure="use 12 frames at 6 a second",
        )


def _existing(out: Path, parameters: dict[str, Any]) -> ToyWorld:
    record = out / "world.json"
    if not record.is_file():
        raise DataError(
            "The folder exists and is not a finished toy data set.",
            where=str(out),
            cure="delete it or choose another folder",
        )
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The toy data set's record cannot be read: {error}.",
            where=str(record),
            cure="delete the folder and make it again",
        ) from error
    if found != parameters:
        found = found if isinstance(found, dict) else {}
        keys = sorted(key for key in found.keys() | parameters.keys() if found.get(key) != parameters.get(key))
        differences = ", ".join(f"{key} {found.get(key)!r} -> {parameters.get(key)!r}" for key in keys)
        raise DataError(
            f"The folder holds a toy data set made otherwise ({differences}).",
            where=str(out),
            allowed="an absent folder, or one made from the same parameters",
            cure="delete it or choose another folder",
        )
    return _paths(out)


def _fill(
    folder: Path, counts: dict[str, int], seed: int, video: ToyVideo, workers: int, progress: Progress | None
) -> None:
    (folder / "videos").mkdir()
    jobs = [_Job(split, index, seed, video, str(folder)) for split in SPLITS for index in range(counts[split])]
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    with _mapped(jobs, min(workers, len(jobs))) as made:
        for done, (job, row) in enumerate(zip(jobs, made, strict=True), start=1):
            rows[job.split].append(row)
            if progress is not None:
                progress(done, len(jobs))
    for split in SPLITS:
        write_rows(folder / f"{split}.jsonl", rows[split])


@contextmanager
def _mapped(jobs: list[_Job], workers: int) -> Iterator[Iterator[Row]]:
    if workers == 1:
        yield map(_make_clip, jobs)
        return
    # spawn, not fork: the caller may hold threads and locks of torch or Ray.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool.map(_make_clip, jobs, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise DataError(
            "A process that makes clips died.",
            cure="use fewer workers if memory is short; a script that calls this needs `if __name__ == '__main__':`",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_clip(job: _Job) -> Row:
    import cv2

    from owlcap.data.toy.encode import write_mp4
    from owlcap.data.toy.render import render

    cv2.setNumThreads(1)
    scene = make_scene(job.split, job.seed, job.index)
    captions = write_captions(scene, job.split, job.seed, job.index)
    name = f"{job.split}-{job.index:06d}"
    video = job.video
    frames = render(scene, width=video.width, height=video.height, num_frames=video.num_frames)
    write_mp4(Path(job.folder) / "videos" / f"{name}.mp4", frames, video.fps)
    prompt = TOY_PROMPTS[job.index % len(TOY_PROMPTS)]
    return Row(
        id=name,
        messages=[
            {"role": "user", "content": f"{prompt}{VIDEO_MARK}"},
            {"role": "assistant", "content": captions.brief},
        ],
        videos=[f"videos/{name}.mp4"],
        captions={"full": captions.full, "brief": captions.brief},
        reference=captions.full,
        facts=[FactRow(text=fact.text, tag=fact.tag) for fact in scene.facts],
    )


def _partial_prefix(out: Path) -> str:
    return f".{out.name}.partial-{socket.gethostname()}-"


def _sweep(out: Path) -> None:
    """Delete what killed runs on this machine left beside `out`."""
    for folder in out.parent.glob(_glob_safe(_partial_prefix(out)) + "*"):
        owner = folder.name.removeprefix(_partial_prefix(out)).split("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _glob_safe(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
