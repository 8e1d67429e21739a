"""How well and how fast motion.fitting finds a body again from the key points of its own camera picture.

    python benchmarks/body_fit.py [--frames 200] [--seeds 3] [--noise 0 1 2] [--threads 1]

Synthetic people in random poses, turned any way, one shape a clip of 8 frames, in pictures of 256 x 256 pixels: their
17 COCO key points (of the mesh itself) go to the fitter, with --noise pixels of Gaussian noise on each, and the key
points of the fitted mesh are compared with the true ones. "worst joint" counts frames with every joint within 3 px;
frames/s are of processor time, so that other programs on the machine do not count.

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import roma
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "unit" / "motion"))

from bodies import project, seen_people

from motion.fitting import fit_bodies
from owlcap.config_motion import MeshSection

PIXELS, FLOOR, CLIP = 3.0, 0.95, 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 1.0, 2.0])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| noise, px | mean error, px | 99 of 100 joints, px | frames within 3 px | worst joint too | frames/s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = {noise: measure(arguments.frames, arguments.seeds, noise) for noise in arguments.noise}
    for noise, row in rows.items():
        print(
            f"| {noise:g} | {row['mean_px']:.2f} | {row['p99_px']:.2f} | {row['mean_within']:.1%} | "
            f"{row['worst_within']:.1%} | {row['frames_per_s']:.0f} |"
        )
    figures = {"frames": arguments.frames * arguments.seeds, "threads": arguments.threads, "floor": FLOOR}
    print(json.dumps({"benchmark": "body_fit", **figures, "by_noise": {f"{k:g}": v for k, v in rows.items()}}))


def measure(frames: int, seeds: int, noise: float) -> dict[str, float]:
    """Figures over all seeds."""
    off, seconds = [], 0.0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for start in range(0, frames, CLIP):
            people = seen_people(min(CLIP, frames - start), 1000 * seed + start)
            points = people.keypoints.copy()
            points[..., :2] += rng.normal(0, noise, points[..., :2].shape) if noise else 0
            clips = np.zeros(len(points), int)
            began = time.process_time()
            fit = fit_bodies(people.body, people.camera, "coco17", points, people.boxes, clips, MeshSection()).body
            seconds += time.process_time() - began
            rotations = roma.rotvec_to_rotmat(torch.from_numpy(fit.pose))
            seen = project(
                people.body, people.camera, rotations, torch.from_numpy(fit.shape), torch.from_numpy(fit.root)
            )
            off.append(np.linalg.norm(seen - people.keypoints[..., :2], axis=-1))
    errors = np.concatenate(off)
    return {
        "mean_px": float(errors.mean()),
        "p99_px": float(np.percentile(errors, 99)),
        "mean_within": float((errors.mean(1) <= PIXELS).mean()),
        "worst_within": float((errors.max(1) <= PIXELS).mean()),
        "frames_per_s": len(errors) / seconds,
    }


if __name__ == "__main__":
    main()
