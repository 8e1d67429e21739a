"""The z-buffer of motion.rasteriser, in pictures a second: 384 x 384 pixels, a body of 13,776 triangles.

    python benchmarks/rasteriser.py [--size 384] [--batch 8] [--threads 1] [--seconds 3]

The synthetic body stands upright and fills most of the picture's height. Each row is warmed up once, then repeated for
--seconds of processor time. Speeds are pictures a second of processor time, so that other programs on the machine do
not count (with one thread that is what a free core gives), and by the clock. "whole overlay" adds posing, shading and
mixing with the frame (motion.overlay). The painter is OpenCV's: triangles from far to near, one fillConvexPoly each;
its overlap with the z-buffer's outline (intersection over union) is shown.

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from motion.body import synthetic_body
from motion.camera import Camera
from motion.overlay import draw_bodies
from motion.rasteriser import rasterise
from owlcap.config_motion import OverlaySection

FLOOR = 20.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    size, batch = arguments.size, arguments.batch
    body = synthetic_body()
    camera = Camera.of_frame(size, size, 55.0)
    points = camera.project(standing(batch))
    frames = np.full((batch, size, size, 3), 90, np.uint8)
    every, style = np.ones(batch, bool), OverlaySection()
    mask = rasterise(points[:1], body.faces, size, size).mask[0].numpy()
    rows: dict[str, tuple[int, Callable[[], object]]] = {
        "z-buffer, one picture": (1, lambda: rasterise(points[:1], body.faces, size, size)),
        f"z-buffer, batch of {batch}": (batch, lambda: rasterise(points, body.faces, size, size)),
        "z-buffer, one picture, far side left out": (
            1,
            lambda: rasterise(points[:1], body.faces, size, size, cull=True),
        ),
        f"whole overlay, batch of {batch}": (
            batch,
            lambda: draw_bodies(frames, body, standing(batch), every, camera, style),
        ),
        "OpenCV painter, one picture": (1, lambda: painter(points[0].numpy(), body.faces.numpy(), size)),
    }
    speeds, by_clock = {}, {}
    for name, (count, work) in rows.items():
        speeds[name], by_clock[name] = (count * speed for speed in repeats_a_second(work, arguments.seconds))
    painted = painter(points[0].numpy(), body.faces.numpy(), size) > 0
    overlap = float((mask & painted).sum() / (mask | painted).sum())
    print("| work | pictures/s | ms a picture | pictures/s by the clock |")
    print("| --- | ---: | ---: | ---: |")
    for name, speed in speeds.items():
        print(f"| {name} | {speed:.1f} | {1000 / speed:.1f} | {by_clock[name]:.1f} |")
    covered = float(mask.mean())
    print(f"\nthe body covers {covered:.1%} of the picture; overlap with the painter's outline {overlap:.3f}")
    figures = {"size": size, "faces": len(body.faces), "threads": arguments.threads, "batch": batch}
    single, batched = list(speeds.values())[:2]
    report = {
        "pictures_per_s": speeds,
        "by_clock": by_clock,
        "single": single,
        "batched": batched,
        "painter_iou": overlap,
        "floor": FLOOR,
    }
    print(json.dumps({"benchmark": "rasteriser", **figures, **report}))


def standing(count: int) -> torch.Tensor:
    """Vertices of upright bodies in front of the camera."""
    body = synthetic_body()
    turned = torch.diag(torch.tensor([1.0, -1.0, -1.0])).repeat(count, 1, 1)
    rotations = torch.eye(3).repeat(count, body.num_joints, 1, 1)
    rotations[:, 0] = turned
    return body.vertices(rotations, torch.zeros(count, 10), torch.tensor([[0.0, -0.08, 1.9]]).repeat(count, 1))


def painter(points: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """The same triangles drawn from far to near."""
    canvas = np.zeros((size, size), np.int32)
    corners = points[faces]
    fixed = np.round((corners[..., :2] - 0.5) * 16).astype(np.int32)
    for face in np.argsort(-corners[..., 2].mean(1)).tolist():
        cv2.fillConvexPoly(canvas, fixed[face], face + 1, shift=4)
    return canvas


def repeats_a_second(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """How often it gets done, a second of processor time and a second of the clock."""
    work()
    count, used, started = 0, time.process_time(), time.perf_counter()
    while (passed := time.process_time() - used) < seconds:
        work()
        count += 1
    return count / passed, count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
