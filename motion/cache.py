"""Overlays on disk, addressed by what they were made from: the video's bytes, the settings and the model files.

    CACHE/ab/abcdef.../record.json     what was seen, and which frames were taken
                       poses.npz       the main person in every frame that was looked at, and the body of the key frames
                       frame-0.png     the first key frame, and so on
                       overlay-0.png   the same with the body drawn in

A folder appears whole or not at all, so that a run that was stopped can go on, and two that do the same work do not
disturb each other. record.json holds the digests of the other files: an entry that was damaged later counts as absent,
and is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from owlcap.config_motion import MotionSection
from owlcap.errors import DataError
from owlcap.types import Sample

VERSION = 1  # of what is computed: a change of the arithmetic makes old entries unknown
WORK_ONLY = {"cache", "frames_at_once", "deadline_s", "clips_at_once", "num_actors", "cpus_per_actor", "gpus_per_actor"}
RECORD, POSES = "record.json", "poses.npz"


@dataclass(frozen=True, slots=True)
class MotionRecord:
    """What was found in one clip."""

    video: str
    source: str  # of the poses
    layout: str  # of the key points
    num_frames: int  # that were looked at
    fps: float  # of the video, on average
    frame_indices: tuple[int, ...]  # of the key frames, positions in the video
    num_people: tuple[int, ...]  # in each key frame
    most_people: int  # in any frame
    present_share: float  # of the frames that have the main person in them
    drawn: tuple[bool, ...]  # whether a body is drawn on each key frame
    error_px: tuple[float | None, ...]  # mean distance of body and key points; null: no fit, or the source's own body
    height: int  # of the overlays
    width: int


class MotionCache:
    """The folder of one configuration's overlays."""

    def __init__(self, motion: MotionSection) -> None:
        self.root = cache_folder(motion)
        kept = {
            "version": VERSION,
            "pose": motion.pose.model_dump(exclude={"device", "batch_size", "model", "detector"}),
            "key_frames": motion.key_frames.model_dump(),
            "mesh": motion.mesh.model_dump(),
            "overlay": motion.overlay.model_dump(),
            "extract": motion.extract.model_dump(exclude=WORK_ONLY),
            "files": [_digest_of_any(path) for path in (motion.pose.model, motion.pose.detector, motion.mesh.body)],
        }
        self._settings = json.dumps(kept, sort_keys=True)

    def folder(self, sample: Sample) -> Path:
        """Where the clip's overlays are or would be.

        Raises:
            DataError: the video cannot be read.
        """
        asked = json.dumps([_digest_of_any(sample.video), sample.start_s, sample.end_s, self._settings])
        key = hashlib.sha256(asked.encode()).hexdigest()[:32]
        return self.root / key[:2] / key

    def find(self, sample: Sample) -> MotionRecord | None:
        """What was found in the clip; None where it was not extracted with these settings, or the entry is damaged.

        Raises:
            DataError: the video cannot be read.
        """
        return read_record(self.folder(sample))

    def overlays(self, sample: Sample) -> list[Path]:
        """The clip's overlays in the order of time.

        Raises:
            DataError: it has none in the cache, or damaged ones.
        """
        folder = self.folder(sample)
        record = read_record(folder)
        if record is None:
            raise DataError(
                f"the clip {sample.id!r} has no whole overlays made with these settings",
                where=f"{sample.video}; cache {self.root}",
                cure="make them with the same motion settings: owlcap motion extract DATA",
            )
        return picture_paths(folder, record)

    def keep(self, sample: Sample, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write an entry into a folder that then becomes the clip's.

        Raises:
            DataError: the disk cannot be written.
        """
        folder = self.folder(sample)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                made.chmod(0o755)
                fill(made)
                _put_in_place(made, folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)  # gone already when all went well
        except OSError as error:
            raise DataError(
                f"the cache of overlays cannot be written: {error.strerror or error}",
                where=str(folder),
                cure="free some space, or set motion.extract.cache to a folder that you can write to",
            ) from error
        return folder


def cache_folder(motion: MotionSection) -> Path:
    """`motion.extract.cache`, or motion in the user's cache folder for owlcap."""
    if motion.extract.cache is not None:
        return Path(motion.extract.cache).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "owlcap" / "motion"


def picture_paths(folder: Path, record: MotionRecord, kind: str = "overlay") -> list[Path]:
    """The pictures of an entry: its overlays, or with kind "frame" its key frames."""
    return [folder / f"{kind}-{number}.png" for number in range(len(record.frame_indices))]


def write_record(folder: Path, record: MotionRecord) -> None:
    """Write record.json, the last file of an entry."""
    files = {path.name: _digest_of_any(str(path)) for path in sorted(folder.iterdir())}
    (folder / RECORD).write_text(json.dumps({**asdict(record), "files": files}, indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> MotionRecord | None:
    """The record of an entry; None where there is none, or one of its files is not as it was written."""
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = values.pop("files")
        record = _record(values)
        whole = all(_digest_of_any(str(folder / name)) == digest for name, digest in files.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, DataError):
        return None
    return record if whole else None


def _put_in_place(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if read_record(folder) is not None:
            return  # another process was faster
        if not folder.exists():
            raise
        damaged = made.with_name(f"{made.name}-damaged")
        folder.rename(damaged)
        made.rename(folder)
        shutil.rmtree(damaged, ignore_errors=True)


def _digest_of_any(path: str | None) -> str:
    """Content of a file, or of all files of a folder; a word that names no file stays as it is."""
    if path is None:
        return ""
    found = Path(path).expanduser()
    if found.is_dir():
        return hashlib.sha256(
            "".join(f"{file.name}{_digest_of_any(str(file))}" for file in sorted(found.iterdir())).encode()
        ).hexdigest()
    try:
        status = found.stat()
    except OSError:
        return path  # "synthetic", or a file whose absence is reported where it is read
    return _digest(str(found.absolute()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=65536)
def _digest(path: str, size: int, modified: int) -> str:
    """Content of a file; remembered while its size and time of change stay the same."""
    del size, modified
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=path, cure="check its permissions"
        ) from error


def _record(values: dict[str, Any]) -> MotionRecord:
    lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return MotionRecord(**lists)
