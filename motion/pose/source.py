"""What finds people's key points, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from motion.pose.types import FramePeople, Layout
from owlcap.config_motion import MotionSection, PoseSection
from owlcap.errors import ConfigError, ModelError
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
