"""A pinhole camera: x right, y down, z away from it, metres; pixels count from the top left corner of the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Camera:
    """Where a point in space is in the picture: x = focal * X / Z + center_x, and the same for y."""

    focal: float  # pixels
    center_x: float
    center_y: float

    @classmethod
    def of_frame(cls, height: int, width: int, field_of_view: float) -> Camera:
        """Looks at the middle of the frame; `field_of_view` in degrees is that of the longer side (NLF's rule)."""
        focal = max(height, width) / (2 * math.tan(math.radians(field_of_view) / 2))
        return cls(focal, width / 2, height / 2)

    def project(self, points: Tensor) -> Tensor:
        """[..., 3] in metres -> [..., 3]: x and y in pixels, z in metres as it was."""
        x, y, z = points.unbind(-1)
        return torch.stack([self.focal * x / z + self.center_x, self.focal * y / z + self.center_y, z], -1)
