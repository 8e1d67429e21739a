"""Which triangle each pixel sees: a z-buffer in plain torch, for CPU and GPU, exact and in batches.

Letters of shapes: B pictures, V vertices, F faces, H height, W width.

Every pixel is tested at its centre against every triangle whose bounding box holds that centre; of the triangles that
cover it the nearest wins, and of equally near ones the one with the lowest number. Edges belong to both triangles that
share them, so a closed surface has no gaps. There is no approximation, and the result does not depend on the order of
work: the CPU and a GPU give the same picture but for rounding at edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# (Triangle, pixel) pairs tested together: on a CPU few enough for its caches, on a GPU many, within about 300 MB.
PAIRS_AT_ONCE, PAIRS_AT_ONCE_GPU = 130_000, 4_000_000
NEAR = 1e-6  # triangles that come nearer to the camera's plane than this are not drawn


@dataclass(frozen=True, slots=True)
class Fragments:
    """What each pixel sees."""

    faces: Tensor  # int64 [B, H, W]: number of the triangle; -1: none
    depth: Tensor  # float32 [B, H, W]: its distance along z at the pixel's centre; inf: none
    weights: Tensor  # float32 [B, H, W, 3]: of its corners at that point in space; zeros: none

    @property
    def mask(self) -> Tensor:
        """bool [B, H, W]: whether anything is there."""
        return self.faces >= 0


def rasterise(points: Tensor, faces: Tensor, height: int, width: int, *, cull: bool = False) -> Fragments:
    """Find the nearest triangle of each pixel.

    Args:
        points: float [B, V, 3]: x and y in pixels (the first pixel's centre is at 0.5, 0.5), z the distance from the
            camera along its axis, as `motion.camera.Camera.project` gives them. Depth between corners follows
            perspective: 1 / z is linear in the picture.
        faces: int64 [F, 3], the same for all pictures.
        height, width: of the pictures, in pixels.
        cull: leave out triangles whose corners run clockwise in the picture (y down), the far side of a closed surface
            whose triangles are counter-clockwise from outside. Twice as fast, and the same picture for closed surfaces.

    Triangles with a corner at z <= NEAR are left out whole: nothing is clipped.
    """
    num_pictures, size = len(points), height * width
    corners = points.float()[:, faces].flatten(0, 1)  # [B * F, 3 corners, 3]
    candidates = _Triangles.of(corners, height, width, cull)
    keys = torch.full((num_pictures * size,), EMPTY, dtype=torch.int64, device=points.device)
    for part in candidates.portions():
        _draw(part, keys, len(faces), size, width)
    winners = keys & FACE_BITS
    found = keys != EMPTY
    weights = torch.zeros(len(keys), 3, device=points.device)
    depth = torch.full((len(keys),), torch.inf, device=points.device)
    at = found.nonzero()[:, 0]
    picture = torch.div(at, size, rounding_mode="floor")
    seen = corners[picture * len(faces) + winners[at]]
    pixel = at - picture * size
    row = torch.div(pixel, width, rounding_mode="floor")
    flat = _flat_weights(seen, pixel - row * width, row)
    inverse = flat / seen[..., 2]
    total = inverse.sum(-1)
    weights[at] = inverse / total[:, None]
    depth[at] = 1 / total
    shape = (num_pictures, height, width)
    numbers = torch.where(found, winners, -1)
    return Fragments(numbers.view(shape), depth.view(shape), weights.view(*shape, 3))


EMPTY = torch.iinfo(torch.int64).max
FACE_BITS = 2**32 - 1  # a key is the bits of a depth, which order as the depth does, above the number of a triangle


@dataclass(frozen=True, slots=True)
class _Triangles:
    """Triangles that may cover a pixel, and the pixels of their bounding boxes."""

    corners: Tensor  # float32 [N, 3, 3]
    numbers: Tensor  # int64 [N]: picture * F + face
    left: Tensor  # int64 [N]: the first column
    top: Tensor
    columns: Tensor  # int64 [N]: how many
    rows: Tensor

    @classmethod
    def of(cls, corners: Tensor, height: int, width: int, cull: bool) -> _Triangles:
        low = (corners[..., :2].amin(1) - 0.5).ceil()
        high = (corners[..., :2].amax(1) - 0.5).floor()
        limit = torch.tensor([width - 1, height - 1], device=corners.device)
        low, high = low.clamp(min=0), torch.minimum(high, limit)
        a, b, c = corners[..., :2].unbind(1)
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        shown = (area < 0) if cull else (area != 0)
        kept = ((low <= high).all(1) & (corners[..., 2] > NEAR).all(1) & shown).nonzero()[:, 0]
        first, last = low[kept].long(), high[kept].long()
        columns, rows = (last - first + 1).unbind(1)
        return cls(corners[kept], kept, first[:, 0], first[:, 1], columns, rows)

    def portions(self):
        """Parts with a bounded number of pairs each (or one triangle)."""
        if not len(self.numbers):
            return
        limit = PAIRS_AT_ONCE_GPU if self.numbers.is_cuda else PAIRS_AT_ONCE
        pairs = (self.columns * self.rows).cumsum(0)
        start = 0
        while start < len(pairs):
            done = int(pairs[start - 1]) if start else 0
            end = max(int(torch.searchsorted(pairs, done + limit, right=True)), start + 1)
            part = slice(start, end)
            yield _Triangles(*(getattr(self, name)[part] for name in self.__slots__))
            start = end


def _draw(part: _Triangles, keys: Tensor, num_faces: int, size: int, width: int) -> None:
    """Test each pixel of each bounding box and keep the nearest key of each pixel."""
    counts = part.columns * part.rows
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    place = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
    columns = part.columns[owner]
    row = torch.div(place, columns, rounding_mode="floor")
    x, y = part.left[owner] + place - row * columns, part.top[owner] + row
    right, down = x + 0.5, y + 0.5
    corners = [
        (part.corners[:, k, 0].contiguous()[owner] - right, part.corners[:, k, 1].contiguous()[owner] - down)
        for k in range(3)
    ]
    areas = _areas(corners)
    positive = (areas[0] >= 0) & (areas[1] >= 0) & (areas[2] >= 0)
    negative = (areas[0] <= 0) & (areas[1] <= 0) & (areas[2] <= 0)
    inside = (positive | negative).nonzero()[:, 0]
    owner, pixel = owner[inside], (y * width + x)[inside]
    weights = torch.stack([area[inside] for area in areas], -1)
    depth = weights.sum(-1) / (weights / part.corners[owner][..., 2]).sum(-1)
    picture = torch.div(part.numbers[owner], num_faces, rounding_mode="floor")
    face = part.numbers[owner] - picture * num_faces
    key = (depth.view(torch.int32).long() << 32) | face
    keys.scatter_reduce_(0, picture * size + pixel, key, "amin")


def _flat_weights(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Weights [N, 3] of the corners [N, 3, 3] at the centres of pixels, in the plane of the picture."""
    areas = torch.stack(_areas([(corners[:, k, 0] - (x + 0.5), corners[:, k, 1] - (y + 0.5)) for k in range(3)]), -1)
    return areas / areas.sum(-1, keepdim=True)


def _areas(corners: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Twice the signed areas of the triangles between the origin and the side opposite of each corner.

    The area at a side is exactly the negative of the same side's in the neighbour, so no pixel falls between the two.
    """
    (ax, ay), (bx, by), (cx, cy) = corners
    return [bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx]
