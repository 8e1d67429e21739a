"""Backgrounds of the toy world: flat colours with a few small things that differ from clip to clip."""

from __future__ import annotations

import random

from owlcap.data.toy.canvas import Canvas, Color

HORIZON = 0.58  # the height at which the ground begins, and where those who stand still have their feet
SKIES: dict[str, tuple[Color, Color]] = {  # background: (sky or wall, ground)
    "grass": ((150, 205, 250), (95, 190, 75)),
    "beach": ((165, 225, 250), (238, 214, 155)),
    "snow": ((185, 200, 222), (236, 241, 248)),
    "street": ((178, 98, 78), (112, 112, 118)),
    "room": ((240, 226, 200), (168, 116, 72)),
    "night": ((22, 26, 78), (62, 70, 112)),
}


def draw_background(canvas: Canvas, background: str, width: float, seed: int) -> None:
    """Fill the picture; `width` is that of the picture in shares of its height."""
    rng = random.Random(seed)
    far, near = SKIES[background]
    canvas.box(0, 0, width, HORIZON, far)
    canvas.box(0, HORIZON, width, 1, near)
    _DETAILS[background](canvas, width, rng)


def _grass(canvas: Canvas, width: float, rng: random.Random) -> None:
    trunk = rng.uniform(0.1, 0.9) * width
    canvas.box(trunk - 0.02, HORIZON - 0.16, trunk + 0.02, HORIZON, (110, 75, 45))
    canvas.disc((trunk, HORIZON - 0.2), 0.1, (50, 130, 55))
    for _ in range(10):
        x, y = rng.uniform(0, width), rng.uniform(HORIZON + 0.05, 1)
        canvas.line(((x, y), (x, y - 0.03)), 0.012, (60, 145, 50))


def _beach(canvas: Canvas, width: float, rng: random.Random) -> None:
    canvas.box(0, HORIZON - 0.16, width, HORIZON, (35, 140, 200))
    for _ in range(4):
        x, y = rng.uniform(0, width), rng.uniform(HORIZON - 0.14, HORIZON - 0.02)
        canvas.line(((x, y), (x + 0.1, y)), 0.01, (220, 240, 250))
    canvas.disc((rng.uniform(0.1, 0.9) * width, 0.1), 0.06, (255, 235, 130))


def _snow(canvas: Canvas, width: float, rng: random.Random) -> None:
    for _ in range(2):
        x = rng.uniform(0.05, 0.95) * width
        tree = ((x - 0.09, HORIZON), (x, HORIZON - 0.28), (x + 0.09, HORIZON))
        canvas.shape(tree, (45, 95, 80))
    for _ in range(14):
        canvas.disc((rng.uniform(0, width), rng.uniform(0, HORIZON)), 0.008, (250, 250, 255))


def _street(canvas: Canvas, width: float, rng: random.Random) -> None:
    mortar = (205, 175, 160)
    for row in range(5):
        y = row * HORIZON / 5
        canvas.line(((0, y), (width, y)), 0.012, mortar)
        offset = rng.uniform(0, 0.2)
        for column in range(int(width / 0.2) + 2):
            x = column * 0.2 - offset
            canvas.line(((x, y), (x, y + HORIZON / 5)), 0.012, mortar)
    canvas.line(((0, 0.97), (width, 0.97)), 0.02, (225, 225, 225))


def _room(canvas: Canvas, width: float, rng: random.Random) -> None:
    x = rng.uniform(0.1, 0.6) * width
    canvas.box(x, 0.1, x + 0.26, 0.36, (250, 250, 250))
    canvas.box(x + 0.02, 0.12, x + 0.24, 0.34, (160, 205, 235))
    for row in range(1, 5):
        y = HORIZON + row * (1 - HORIZON) / 5
        canvas.line(((0, y), (width, y)), 0.01, (135, 90, 52))


def _night(canvas: Canvas, width: float, rng: random.Random) -> None:
    for _ in range(18):
        canvas.disc((rng.uniform(0, width), rng.uniform(0, HORIZON - 0.05)), 0.009, (245, 245, 220))
    canvas.disc((rng.uniform(0.1, 0.9) * width, 0.12), 0.07, (245, 240, 205))


_DETAILS = {"grass": _grass, "beach": _beach, "snow": _snow, "street": _street, "room": _room, "night": _night}
