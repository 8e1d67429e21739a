"""The schema of the human-motion pathway (M-ACM); a part of owlcap.config, which hands it on.

What the paper leaves open is marked INTERPRETATION: our reading, to be changed here and nowhere else.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from owlcap.config_rewards import Section


class PoseSection(Section):
    """Where key points come from. The model files are the user's: see docs/motion.md."""

    source: str = "vitpose"  # toy, vitpose, rtmlib, nlf, or the name or path/to/file.py:name of a plug-in
    model: str | None = None  # vitpose: a folder; rtmlib: an ONNX file; nlf: a TorchScript file
    detector: str | None = None  # of people, for vitpose and rtmlib: a YOLOX ONNX file; null: one box, the whole frame
    min_confidence: float = Field(default=0.5, ge=0, le=1)  # a key point counts as visible from this on
    device: str = "cpu"  # where the models run: cpu, cuda
    batch_size: int = Field(default=16, gt=0)  # vitpose: people in one forward pass; nlf: frames
    max_gap: int = Field(default=8, ge=0)  # frames for which a person may be unseen and still be the same
    hide_limbs: float = Field(default=0.0, ge=0, le=1)  # to test robustness: share of limbs hidden in each frame
    wrong_poses: float = Field(default=0.0, ge=0, le=1)  # the same: share of frames with left and right exchanged


class KeyFrameSection(Section):
    """Which frames the motion pathway sees."""

    method: Literal["pose_aware", "uniform", "motion_energy"] = "pose_aware"
    num_frames: int = Field(default=8, gt=0)  # INTERPRETATION: segments of a clip, one key frame each
    scale: Literal["box_diagonal", "box_height", "none"] = "box_diagonal"  # INTERPRETATION: distances are divided by it


class MeshSection(Section):
    """The body that is drawn, and how it is fitted to key points."""

    body: str = "synthetic"  # synthetic, or an SMPL or SMPL-X file (.npz, .pkl)
    parameters: Literal["auto", "fitted"] = "auto"  # auto: the pose source's own SMPL parameters where it gives them
    field_of_view: float = Field(default=55.0, gt=0, lt=180)  # degrees, of the frame's longer side
    num_steps: int = Field(default=30, gt=0)  # of the fit, from each first guess
    pose_prior: float = Field(default=1.0, ge=0)  # weight of a relaxed pose
    shape_prior: float = Field(default=1.0, ge=0)  # weight of an average shape
    anchor_every: int = Field(default=1, gt=0)  # frames of a clip fitted from scratch; others start from the one before
    time_prior: float = Field(default=1.0, ge=0)  # weight, for those others, of the pose that they start from


class OverlaySection(Section):
    """How the body is drawn on the key frames."""

    style: Literal["shaded", "parts", "silhouette"] = "shaded"  # the paper's: shaded; parts: a colour a body part
    background: Literal["frame", "black"] = "frame"  # behind the body
    gray: int = Field(default=200, ge=1, le=255)  # of a fully lit surface
    opacity: float = Field(default=1.0, gt=0, le=1)


class ExtractSection(Section):
    """Turning videos into overlays on disk: `owlcap motion extract`."""

    cache: str | None = None  # a folder; null: motion in the user's cache folder for owlcap
    fps: float = Field(default=8.0, gt=0)  # frames a second that are looked at
    min_pixels: int = Field(default=64 * 28 * 28, gt=0)  # of one frame; smaller ones are enlarged
    max_pixels: int = Field(default=256 * 28 * 28, gt=0)  # of one frame; overlays have this size too
    frames_at_once: int = Field(default=64, ge=2)  # decoded and held at a time, however long the clip
    backend: Literal["decord", "pyav", "torchcodec"] = "decord"
    deadline_s: float = Field(default=60.0, gt=0)  # for decoding one portion of a clip
    clips_at_once: int = Field(default=8, gt=0)  # fitted together by one actor
    num_actors: int = Field(default=1, gt=0)
    cpus_per_actor: float = Field(default=1.0, gt=0)
    gpus_per_actor: float = Field(default=0.0, ge=0)


class DecodingSection(Section):
    """Motion Synergetic Decoding, `--msd`: the score of motion.decoding, from the paper's types of terms and weights.

    The explicit formula is INTERPRETATION; a weight of 0 leaves its term out.
    """

    alpha: tuple[float, float, float, float, float, float] = (0.5, 0.2, 0.4, 0.8, 0.3, 2.0)  # the paper's weights
    beta: float = Field(default=0.2, ge=0)  # the paper's: how hard improbable tokens are pruned
    prune: Literal["relative", "literal", "union"] = "relative"  # INTERPRETATION: the published rule prunes too much
    sampling: Literal["calibrated", "synergy"] = "calibrated"  # INTERPRETATION: what is drawn from, if not greedy
    tau: float = Field(default=1.0, gt=0)  # INTERPRETATION: calibrated is log((pv + pm) / 2) + S / tau

    @model_validator(mode="after")
    def _weights(self) -> DecodingSection:
        if min(self.alpha) < 0 or self.alpha[4] == 0:
            raise ValueError("alpha: weights must not be negative, and the fifth (a power) must be above 0")
        return self


class MotionSection(Section):
    """Key frames with a body mesh drawn over the person, given to the policy beside the video: see docs/macm.md."""

    enabled: bool = False  # needs a checkpoint with a motion merger: owlcap model add-motion
    max_overlays: int = Field(default=8, gt=0)  # INTERPRETATION: pictures of one clip that the policy sees at most
    min_pixels: int = Field(default=4 * 28 * 28, gt=0)  # INTERPRETATION: of one overlay picture
    max_pixels: int = Field(default=256 * 28 * 28, gt=0)  # INTERPRETATION: of one overlay picture
    missing: Literal["error", "visual"] = "error"  # a row without overlays: a bad row, or shown as its video alone
    pose: PoseSection = PoseSection()
    key_frames: KeyFrameSection = KeyFrameSection()
    mesh: MeshSection = MeshSection()
    overlay: OverlaySection = OverlaySection()
    extract: ExtractSection = ExtractSection()
    decoding: DecodingSection = DecodingSection()

    @model_validator(mode="after")
    def _bounds(self) -> MotionSection:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) is above max_pixels ({self.max_pixels})")
        return self
