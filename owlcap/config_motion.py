"""The schema of the human-motion pathway (M-ACM); a part of owlcap.config, which hands it on.

What the paper leaves open is marked INTERPRETATION: our reading, to be changed here and nowhere else.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from owlcap.config_rewards import Section


class MotionSection(Section):
    """Key frames with a body mesh drawn over the person, given to the policy beside the video: see docs/macm.md."""

    enabled: bool = False  # needs a checkpoint with a motion merger: owlcap model add-motion
    max_overlays: int = Field(default=8, gt=0)  # INTERPRETATION: pictures of one clip that the policy sees at most
    min_pixels: int = Field(default=4 * 28 * 28, gt=0)  # INTERPRETATION: of one overlay picture
    max_pixels: int = Field(default=256 * 28 * 28, gt=0)  # INTERPRETATION: of one overlay picture
    missing: Literal["error", "visual"] = "error"  # a row without overlays: a bad row, or shown as its video alone

    @model_validator(mode="after")
    def _bounds(self) -> MotionSection:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) is above max_pixels ({self.max_pixels})")
        return self
