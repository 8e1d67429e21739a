"""A picture to draw on, with coordinates in shares of its height."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

Color = tuple[int, int, int]  # RGB
Point = tuple[float, float]  # x to the right and y down from the top left, in shares of the height


class Canvas:
    """Draws on a uint8 [H, W, 3] array in place; strokes and shapes have no soft edges (draw large, then shrink)."""

    def __init__(self, picture: np.ndarray) -> None:
        self.picture = picture
        self.scale = picture.shape[0]

    def _at(self, point: Point) -> tuple[int, int]:
        return round(point[0] * self.scale), round(point[1] * self.scale)

    def line(self, points: tuple[Point, ...], width: float, color: Color) -> None:
        """Joined strokes with round ends."""
        for start, end in itertools.pairwise(points):
            cv2.line(self.picture, self._at(start), self._at(end), color, max(1, round(width * self.scale)))

    def disc(self, center: Point, radius: float, color: Color) -> None:
        """A filled circle."""
        cv2.circle(self.picture, self._at(center), max(1, round(radius * self.scale)), color, -1)

    def circle(self, center: Point, radius: float, width: float, color: Color) -> None:
        """A ring."""
        line = max(1, round(width * self.scale))
        cv2.circle(self.picture, self._at(center), max(1, round(radius * self.scale)), color, line)

    def ellipse(self, center: Point, half_width: float, half_height: float, color: Color) -> None:
        """A filled ellipse."""
        axes = (max(1, round(half_width * self.scale)), max(1, round(half_height * self.scale)))
        cv2.ellipse(self.picture, self._at(center), axes, 0, 0, 360, color, -1)

    def shape(self, points: tuple[Point, ...], color: Color) -> None:
        """A filled convex polygon."""
        cv2.fillConvexPoly(self.picture, np.array([self._at(point) for point in points], np.int32), color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """A filled upright rectangle."""
        cv2.rectangle(self.picture, self._at((left, top)), self._at((right, bottom)), color, -1)
