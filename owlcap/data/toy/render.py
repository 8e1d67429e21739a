"""Draws toy scenes as frames: an articulated person who acts, others who stand still, an object, a background.

Everything is drawn OVERSAMPLING times as large and averaged down, so that limbs of three pixels stay smooth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from owlcap.data.toy.canvas import Canvas, Color, Point
from owlcap.data.toy.pose import Pose, pose_at
from owlcap.data.toy.scene import Scene
from owlcap.data.toy.scenery import HORIZON, draw_background

OVERSAMPLING = 3
GROUND = 0.90  # where the actor's feet are
PAINT: dict[str, Color] = {
    "red": (225, 25, 30),
    "blue": (30, 70, 235),
    "green": (20, 150, 45),
    "yellow": (250, 225, 20),
    "purple": (165, 35, 200),
    "white": (250, 250, 250),
    "black": (25, 25, 28),
}
DARK: Color = (15, 15, 20)
PALE: Color = (125, 136, 168)  # outlines at night: lighter than black trousers, darker than a white shirt
SKINS: tuple[Color, ...] = ((245, 205, 170), (225, 175, 130), (180, 125, 85), (120, 78, 52))
HAIRS: tuple[Color, ...] = ((40, 28, 20), (95, 60, 30), (190, 150, 80), (70, 70, 75))
CROWD_PAINT: tuple[Color, ...] = ((105, 105, 112), (128, 118, 108), (92, 100, 108), (120, 112, 122))
CROWD_PLACES = (0.08, 0.22, 0.78, 0.92)  # shares of the width, by Look.crowd
CROWD_SIZE = 0.42
OBJECT_PLACES = {"left": 0.12, "right": 0.88}  # shares of the width
OBJECT_SIZE = 0.2
OBJECT_BOTTOM = 0.96

LEG, TORSO, ARM, HEAD, NECK = 0.31, 0.23, 0.26, 0.078, 0.02
SHOULDERS, HIPS = 0.085, 0.05  # half widths
LIMB, EDGE = 0.066, 0.016  # thickness of arms and legs, and of the outline


@dataclass(frozen=True, slots=True)
class Wear:
    """The colours of one person."""

    shirt: Color
    trousers: Color
    skin: Color
    hair: Color
    outline: Color


def render(scene: Scene, *, width: int, height: int, num_frames: int) -> np.ndarray:
    """Frames of a scene: uint8 [num_frames, height, width, 3], RGB; frame i shows the middle of its time."""
    size = (height * OVERSAMPLING, width * OVERSAMPLING, 3)
    aspect = width / height
    still = Canvas(np.zeros(size, np.uint8))
    draw_background(still, scene.background, aspect, scene.look.scenery)
    outline = PALE if scene.background == "night" else DARK
    for number, place in enumerate(scene.look.crowd):
        paint = CROWD_PAINT[(number + scene.look.scenery) % len(CROWD_PAINT)]
        skin = SKINS[(place + scene.look.scenery) % len(SKINS)]
        wear = Wear(paint, paint, skin, HAIRS[place], outline)
        _draw_person(still, Pose(), (CROWD_PLACES[place] * aspect, HORIZON + 0.03), CROWD_SIZE, wear)
    wear = Wear(PAINT[scene.shirt], PAINT[scene.trousers], SKINS[scene.look.skin], HAIRS[scene.look.hair], outline)
    center = aspect / 2 + scene.look.center
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        canvas = Canvas(still.picture.copy())
        pose = pose_at(scene.actions, (number + 0.5) / num_frames)
        _draw_shadow(canvas, center + pose.shift, pose.lift, scene.background)
        _draw_person(canvas, pose, (center + pose.shift, GROUND), scene.look.size, wear)
        _draw_object(canvas, scene, aspect, outline)
        frames[number] = cv2.resize(canvas.picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(frames * np.float32(scene.look.light), 0, 255).astype(np.uint8)


def _draw_shadow(canvas: Canvas, x: float, lift: float, background: str) -> None:
    shade = (40, 46, 80) if background == "night" else (90, 90, 85)
    canvas.ellipse((x, GROUND + 0.015), 0.13 - 0.35 * lift, 0.025, shade)


def _draw_person(canvas: Canvas, pose: Pose, feet: Point, size: float, wear: Wear) -> None:
    """One person whose feet stand (without `pose.lift`) at a point; size 1 is the actor's usual height."""
    ankle_y = feet[1] - pose.lift * size
    hip = (feet[0], ankle_y - LEG * (1 - 0.58 * pose.crouch) * size)
    up = (math.sin(pose.lean), -math.cos(pose.lean))
    reach = TORSO * (1 - 0.75 * pose.bow) * size
    neck = (hip[0] + up[0] * reach, hip[1] + up[1] * reach)
    for side, angle in ((-1, pose.left_leg), (1, pose.right_leg)):
        _draw_leg(canvas, (hip[0] + side * HIPS * size, hip[1]), side, angle, pose.crouch, ankle_y, size, wear)
    shoulder, waist = SHOULDERS * size, HIPS * size
    torso = (
        (neck[0] - shoulder, neck[1]),
        (neck[0] + shoulder, neck[1]),
        (hip[0] + waist * 1.2, hip[1] + 0.02 * size),
        (hip[0] - waist * 1.2, hip[1] + 0.02 * size),
    )
    for start, end in zip(torso, (*torso[1:], torso[0]), strict=True):
        canvas.line((start, end), (LIMB * 0.5 + 2 * EDGE) * size, wear.outline)
    for start, end in zip(torso, (*torso[1:], torso[0]), strict=True):
        canvas.line((start, end), LIMB * 0.5 * size, wear.shirt)
    canvas.shape(torso, wear.shirt)
    for side, angle in ((-1, pose.left_arm), (1, pose.right_arm)):
        _draw_arm(canvas, (neck[0] + side * shoulder, neck[1] + 0.01 * size), angle, size, wear)
    rise = (NECK + HEAD) * (1 - 1.9 * pose.bow)  # a bowed head hangs below the shoulders, in front of the body
    head = (neck[0] + up[0] * rise * size, neck[1] + up[1] * rise * size)
    _draw_head(canvas, head, pose, size, wear)


def _draw_leg(
    canvas: Canvas, hip: Point, side: int, angle: float, crouch: float, ankle_y: float, size: float, wear: Wear
) -> None:
    if crouch > 0:  # feet stay where they are, knees go outward
        ankle = (hip[0] + side * 0.06 * size, ankle_y)
        knee = (hip[0] + side * (0.03 + 0.13 * crouch) * size, (hip[1] + ankle_y) / 2 - 0.03 * crouch * size)
    else:
        ankle = (hip[0] + math.sin(angle) * LEG * size, hip[1] + math.cos(angle) * LEG * size)
        knee = ((hip[0] + ankle[0]) / 2, (hip[1] + ankle[1]) / 2)
    canvas.line((hip, knee, ankle), (LIMB * 1.1 + 2 * EDGE) * size, wear.outline)
    canvas.line((hip, knee, ankle), LIMB * 1.1 * size, wear.trousers)
    canvas.disc(ankle, LIMB * 0.62 * size, wear.outline)


def _draw_arm(canvas: Canvas, shoulder: Point, angle: float, size: float, wear: Wear) -> None:
    hand = (shoulder[0] + math.sin(angle) * ARM * size, shoulder[1] + math.cos(angle) * ARM * size)
    canvas.line((shoulder, hand), (LIMB + 2 * EDGE) * size, wear.outline)
    canvas.line((shoulder, hand), LIMB * size, wear.shirt)
    canvas.disc(hand, LIMB * 0.66 * size, wear.skin)


def _draw_head(canvas: Canvas, center: Point, pose: Pose, size: float, wear: Wear) -> None:
    canvas.disc(center, (HEAD + EDGE) * size, wear.outline)
    canvas.disc(center, HEAD * size, wear.hair)
    face = (center[0] + 0.4 * HEAD * pose.facing * size, center[1] + (0.3 + 0.9 * pose.bow) * HEAD * size)
    canvas.disc(face, HEAD * (0.72 - 0.5 * pose.bow) * size, wear.skin)


def _draw_object(canvas: Canvas, scene: Scene, aspect: float, outline: Color) -> None:
    x = OBJECT_PLACES[scene.object_side] * aspect
    half, paint = OBJECT_SIZE / 2, PAINT[scene.object_color]
    middle = (x, OBJECT_BOTTOM - half)
    match scene.object_kind:
        case "ball":
            canvas.disc(middle, half + EDGE, outline)
            canvas.disc(middle, half, paint)
        case "box":
            canvas.box(x - half - EDGE, middle[1] - half - EDGE, x + half + EDGE, middle[1] + half + EDGE, outline)
            canvas.box(x - half, middle[1] - half, x + half, middle[1] + half, paint)
        case "cone":
            tip, base = middle[1] - 1.5 * half, middle[1] + half
            canvas.shape(
                ((x, tip - 3 * EDGE), (x + half + 2 * EDGE, base + EDGE), (x - half - 2 * EDGE, base + EDGE)), outline
            )
            canvas.shape(((x, tip), (x + half, base), (x - half, base)), paint)
        case "hoop":
            canvas.circle(middle, half, 0.05 + 2 * EDGE, outline)
            canvas.circle(middle, half, 0.05, paint)
