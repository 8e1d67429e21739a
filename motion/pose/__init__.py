"""Key points of people in frames: what they are, and where they come from."""

from motion.pose.source import PoseSource, build_pose_source
from motion.pose.types import BodyParameters, FramePeople, PoseTrack

__all__ = ["BodyParameters", "FramePeople", "PoseSource", "PoseTrack", "build_pose_source"]
