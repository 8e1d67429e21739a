"""NLF (Neural Localizer Fields): boxes, 3-D joints and SMPL parameters from a TorchScript file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from motion.pose.source import model_file
from motion.pose.types import BodyParameters, FramePeople, Layout, nobody
from owlcap.config_motion import MotionSection
from owlcap.errors import ModelError, first_line
from owlcap.registry import register
from owlcap.types import Sample, VideoClip

WHAT = "an NLF TorchScript file (nlf_l_multi.torchscript)"
ORIGIN = "the releases of github.com/isarandi/nlf"
LICENCE = "code MIT; weights for non-commercial research only"
MILLIMETRES = 1000.0
NEEDED = ("boxes", "joints2d", "joints3d", "pose", "betas")


@register("pose_source", "nlf")
class NlfPoses:
    """Detects people and their bodies, `pose.batch_size` frames at a time.

    A joint outside of the frame has confidence 0, one inside the confidence of the person's box.

    Raises:
        ConfigError: no file is named.
        ModelError: it is missing, or is no such model.
    """

    layout: Layout = "smpl24"

    def __init__(self, motion: MotionSection) -> None:
        import torchvision  # noqa: F401  (its operators must be known before the file is loaded)

        path = model_file(motion.pose, WHAT, ORIGIN, LICENCE)
        try:
            self._model: Any = torch.jit.load(path, map_location=motion.pose.device).eval()
            _ = self._model.detect_smpl_batched
        except (RuntimeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"the NLF model cannot be loaded: {first_line(error)}",
                where=str(path),
                allowed=WHAT,
                cure=f"get it again from {ORIGIN} ({LICENCE})",
            ) from error
        self._path = str(path)
        self._device, self._batch_size = motion.pose.device, motion.pose.batch_size
        self._view = motion.mesh.field_of_view

    def find(self, clip: VideoClip, sample: Sample) -> list[FramePeople]:
        """Everyone in each frame, with their SMPL parameters.

        Raises:
            ModelError: the model's answer lacks a part.
        """
        del sample
        people: list[FramePeople] = []
        for start in range(0, len(clip.frames), self._batch_size):
            frames = torch.from_numpy(clip.frames[start : start + self._batch_size]).permute(0, 3, 1, 2).contiguous()
            with torch.inference_mode():
                found = self._model.detect_smpl_batched(
                    frames.to(self._device), default_fov_degrees=self._view, model_name="smpl"
                )
            people += self._people(found, len(frames), clip.frames.shape[1:3])
        return people

    def _people(self, found: dict[str, Any], count: int, size: tuple[int, int]) -> list[FramePeople]:
        if "boxes" not in found:  # what it answers where nobody is in any frame
            return [nobody(self.layout)] * count
        missing = [name for name in NEEDED if name not in found]
        if missing:
            raise ModelError(f"the NLF model's answer lacks {', '.join(missing)}", where=self._path, allowed=WHAT)
        return [
            self._of_frame({name: found[name][i].float().cpu().numpy() for name in NEEDED}, size) for i in range(count)
        ]

    def _of_frame(self, found: dict[str, np.ndarray], size: tuple[int, int]) -> FramePeople:
        if not len(found["boxes"]):
            return nobody(self.layout)
        corner, sides, scores = np.split(found["boxes"][:, :5], [2, 4], axis=1)  # left, top, width, height, score
        places = found["joints2d"][:, :24]
        inside = ((places >= 0) & (places <= np.array(size[::-1]))).all(-1)
        keypoints = np.concatenate([places, (inside * scores)[..., None]], -1).astype(np.float32)
        body = BodyParameters(
            pose=found["pose"].reshape(len(scores), -1, 3).astype(np.float32),
            shape=found["betas"].astype(np.float32),
            # The pelvis joint itself, not the file's translation, which SMPL adds to a pelvis that the shape moves.
            root=(found["joints3d"][:, 0] / MILLIMETRES).astype(np.float32),
        )
        return FramePeople(keypoints, np.concatenate([corner, corner + sides], 1), scores[:, 0], body)
