"""What finds people's key points, by name."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from motion.pose.types import NUM_POINTS, FramePeople, Layout
from owlcap.config_motion import MotionSection, PoseSection
from owlcap.errors import ConfigError, DataError, ModelError, OwlcapError
from owlcap.registry import resolve
from owlcap.types import Sample, VideoClip

BUILT_IN = {"toy": "toy", "vitpose": "vitpose", "rtmlib": "rtm", "nlf": "nlf"}  # name -> module that registers it


class PoseSource(Protocol):
    """Finds people in frames. A plug-in is a callable that takes the MotionSection and gives one of these."""

    layout: Layout

    def find(self, clip: VideoClip, sample: Sample) -> list[FramePeople]:
        """Everyone in each frame of a portion of the sample's clip.

        Raises:
            DataError: the source knows nothing of this clip.
        """
        ...


def build_pose_source(motion: MotionSection) -> PoseSource:
    """The source that the settings name, with its models loaded.

    Raises:
        ConfigError: unknown name, or a setting that the source needs is missing.
        ModelError: a model file is missing or cannot be used.
    """
    name = motion.pose.source
    for known in (name,) if name in BUILT_IN else BUILT_IN:  # all of them where an error may have to name them
        importlib.import_module(f"motion.pose.{BUILT_IN[known]}")
    build = cast("Callable[[MotionSection], PoseSource]", resolve("pose_source", name))
    return build(motion)


def find_people(source: PoseSource, name: str, clip: VideoClip, sample: Sample) -> list[FramePeople]:
    """What the source called `name` says of a portion of a clip, if it can be used.

    Raises:
        DataError: the source knows nothing of this clip, fails on it, or gives something else than one FramePeople a
            frame with finite key points of its layout.
    """
    try:
        people = source.find(clip, sample)
    except OwlcapError:
        raise
    except Exception as error:  # a plug-in's: it must not end the work on other clips
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"the pose source failed: {type(error).__name__}: {error}",
            where=f"{sample.video}; {name}, line {line.lineno} of {line.filename}",
            cure="mend the plug-in (motion.pose.source)",
        ) from error
    points = NUM_POINTS[source.layout]
    sound = len(people) == len(clip.frames) and all(
        frame.keypoints.shape == (frame.num_people, points, 3)
        and frame.boxes.shape == (frame.num_people, 4)
        and frame.scores.shape == (frame.num_people,)
        and all(np.isfinite(values).all() for values in (frame.keypoints, frame.boxes, frame.scores))
        for frame in people
    )
    if not sound:
        raise DataError(
            "the pose source gave poses that cannot be used",
            where=f"{sample.video}; {name}",
            allowed=f"one FramePeople for each of the {len(clip.frames)} frames: key points [people, {points}, 3], "
            "boxes [people, 4], scores [people], all finite",
            cure="mend the plug-in (motion.pose.source)",
        )
    return people


def model_file(pose: PoseSection, what: str, origin: str, licence: str) -> Path:
    """The file or folder that `pose.model` names.

    Raises:
        ConfigError: the setting is empty.
        ModelError: there is no such file; the error says where it comes from and under which licence.
    """
    if pose.model is None:
        raise ConfigError(
            f"the pose source {pose.source!r} needs a model file",
            where="motion.pose.model is null",
            allowed=what,
            cure=f"get {what} from {origin} ({licence}) and set motion.pose.model to its path",
        )
    return existing_file(pose.model, "motion.pose.model", what, origin, licence)


def existing_file(path: str, key: str, what: str, origin: str, licence: str) -> Path:
    """A user's model file or folder.

    Raises:
        ModelError: it does not exist; the error says where it comes from and under which licence.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise ModelError(
            f"there is no such model file: {found}",
            where=key,
            allowed=what,
            cure=f"get it from {origin} ({licence}), or correct the path; it is never downloaded for you",
        )
    return found
