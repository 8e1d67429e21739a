"""Draws toy scenes as frames: an articulated person who acts, others who stand still, an object, a background.

Everything is drawn OVERSAMPLING times as large and averaged down, so that limbs of three pixels stay smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from owlcap.data.toy.canvas import Canvas, Color, Point
from owlcap.data.toy.pose import Pose, pose_at
from owlcap.data.toy.scene import Scene
from owlcap.data.toy.scenery import HORIZON, draw_background
from owlcap.data.toy.skeleton import HEAD, HIPS, SHOULDERS, Skeleton, skeleton

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

LIMB, EDGE = 0.066, 0.016  # thickness of arms and legs, and of the outline


def people(scene: Scene, time: float, aspect: float) -> tuple[Skeleton, ...]:
    """Everyone in the picture at a moment (share of the clip's length): the one who acts, then those who stand."""
    pose = pose_at(scene.actions, time)
    actor = skeleton(pose, (aspect / 2 + scene.look.center + pose.shift, GROUND), scene.look.size)
    return (actor, *(skeleton(Pose(), _crowd_feet(place, aspect), CROWD_SIZE) for place in scene.look.crowd))


def _crowd_feet(place: int, aspect: float) -> Point:
    return CROWD_PLACES[place] * aspect, HORIZON + 0.03


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
        _draw_person(still, Pose(), _crowd_feet(place, aspect), CROWD_SIZE, wear)
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
    body = skeleton(pose, feet, size)
    for leg in (body.left_leg, body.right_leg):
        points = (leg.root, leg.middle, leg.end)
        canvas.line(points, (LIMB * 1.1 + 2 * EDGE) * size, wear.outline)
        canvas.line(points, LIMB * 1.1 * size, wear.trousers)
        canvas.disc(leg.end, LIMB * 0.62 * size, wear.outline)
    _draw_torso(canvas, body, size, wear)
    for arm in (body.left_arm, body.right_arm):
        canvas.line((arm.root, arm.end), (LIMB + 2 * EDGE) * size, wear.outline)
        canvas.line((arm.root, arm.end), LIMB * size, wear.shirt)
        canvas.disc(arm.end, LIMB * 0.66 * size, wear.skin)
    canvas.disc(body.head, (HEAD + EDGE) * size, wear.outline)
    canvas.disc(body.head, HEAD * size, wear.hair)
    canvas.disc(body.face, HEAD * (0.72 - 0.5 * pose.bow) * size, wear.skin)


def _draw_torso(canvas: Canvas, body: Skeleton, size: float, wear: Wear) -> None:
    (neck, hip), shoulder, waist = (body.neck, body.hip), SHOULDERS * size, HIPS * size
    torso = (
        (neck[0] - shoulder, neck[1]),
        (neck[0] + shoulder, neck[1]),
        (hip[0] + waist * 1.2, hip[1] + 0.02 * size),
        (hip[0] - waist * 1.2, hip[1] + 0.02 * size),
    )
    edges = tuple(zip(torso, (*torso[1:], torso[0]), strict=True))
    for edge in edges:
        canvas.line(edge, (LIMB * 0.5 + 2 * EDGE) * size, wear.outline)
    for edge in edges:
        canvas.line(edge, LIMB * 0.5 * size, wear.shirt)
    canvas.shape(torso, wear.shirt)


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
