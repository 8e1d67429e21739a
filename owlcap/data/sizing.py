"""How large the policy sees a picture: sides in multiples of 28 pixels, as Qwen2.5-VL's preprocessing makes them."""

from __future__ import annotations

import math

CELL = 28  # pixels: patch 14 times spatial merge 2


def picture_size(height: int, width: int, min_pixels: int, max_pixels: float) -> tuple[int, int]:
    """Height and width in multiples of 28 near a picture's aspect, with an area between two bounds."""
    rows, columns = max(1, round(height / CELL)), max(1, round(width / CELL))
    if rows * columns * CELL**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / CELL)) for side in (height, width))
    elif rows * columns * CELL**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / CELL) for side in (height, width))
    return rows * CELL, columns * CELL
