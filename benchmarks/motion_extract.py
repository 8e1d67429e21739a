"""From videos to overlays: key frames and frames a second with 1 and 2 actors, and memory on a 10-minute video.

    python benchmarks/motion_extract.py [--clips 48] [--actors 1 2] [--minutes 10]

Toy clips (12 frames, exact joints as the pose source, so that the geometry is measured and not a pose model) go through
motion.dataset.extract_data on a local Ray with as many CPUs as there are actors; Ray's start and the actors' start
are not counted. "frames" are those looked at, "key frames" those fitted and drawn.

Memory: a video of --minutes (12 frames a second, 320 x 240) and one of 10 seconds with the same people, each extracted
in a process of its own; the figure is the largest resident size of that process and of its decoder.

Prints two tables and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

FPS, SIZE, SHORT_S = 12, (240, 320), 10.0


def main() -> None:
    """Measure both, or the memory of one video in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--one", metavar="VIDEO", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(extract_one(Path(arguments.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        speed = {count: throughput(Path(folder) / str(count), arguments.clips, count) for count in arguments.actors}
        memory = {f"{s:g} s": in_own_process(Path(folder), s) for s in (SHORT_S, arguments.minutes * 60)}
    print("| actors | clips/s | frames/s | key frames/s |")
    print("| ---: | ---: | ---: | ---: |")
    for count, row in speed.items():
        print(f"| {count} | {row['clips']:.2f} | {row['frames']:.1f} | {row['key_frames']:.1f} |")
    print("\n| video | frames looked at | s | largest size, MiB | decoder's, MiB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, row in memory.items():
        print(f"| {name} | {row['frames']:.0f} | {row['seconds']:.1f} | {row['mib']:.0f} | {row['decoder_mib']:.0f} |")
    print(json.dumps({"benchmark": "motion_extract", "clips": arguments.clips, "speed": speed, "memory": memory}))


def throughput(folder: Path, num_clips: int, num_actors: int) -> dict[str, float]:
    """Clips, frames and key frames a second; the first actors' work after their start sets the clock going."""
    import ray

    from motion.dataset import extract_data
    from owlcap.config_motion import ExtractSection, MotionSection, PoseSection
    from owlcap.data.rows import read_rows
    from owlcap.data.toy import make_toy_world

    world = make_toy_world(folder / "toy", num_train=num_clips, num_validation=0, num_test=0, seed=0)
    extract = ExtractSection(cache=str(folder / "cache"), num_actors=num_actors, clips_at_once=4)
    motion = MotionSection(pose=PoseSection(source="toy"), extract=extract)
    done: list[float] = []
    ray.init(address="local", num_cpus=num_actors, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        samples = read_rows(world.train)
        report = extract_data(samples, motion, lambda *_: done.append(time.perf_counter()))
    finally:
        ray.shutdown()
    assert not report.failures, report.failures
    first = extract.clips_at_once * num_actors  # done while others may still have started
    clips = (len(done) - first) / (done[-1] - done[first - 1])
    records = [result.record for result in report.results.values()]  # type: ignore[union-attr]
    frames = sum(record.num_frames for record in records) / len(records)
    key_frames = sum(len(record.frame_indices) for record in records) / len(records)
    return {"clips": clips, "frames": clips * frames, "key_frames": clips * key_frames}


def in_own_process(folder: Path, seconds: float) -> dict[str, float]:
    """Figures of one video of that length."""
    path = folder / f"{seconds:g}.mp4"
    write_video(path, seconds)
    done = subprocess.run([sys.executable, __file__, "--one", str(path)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_video(path: Path, seconds: float) -> None:
    """A square that wanders over noise, written frame by frame."""
    height, width = SIZE
    still = np.random.default_rng(0).integers(60, 200, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "30"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(round(seconds * FPS)):
            frame = still.copy()
            left = number * 3 % (width - 60)
            frame[60:200, left : left + 60] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def extract_one(path: Path) -> dict[str, float]:
    """Extract a video here and say how large this process and its decoder became."""
    from motion.extract import Extracted, MotionExtractor
    from motion.pose.types import FramePeople, box_around
    from owlcap.config_motion import ExtractSection, MotionSection, PoseSection
    from owlcap.registry import register
    from owlcap.types import Sample, VideoClip

    @register("pose_source", "benchmark-wanderer")
    class Wanderer:
        layout = "coco17"

        def __init__(self, motion: MotionSection) -> None:
            self._points = np.random.default_rng(0).uniform(0.2, 0.8, (17, 2))

        def find(self, clip: VideoClip, sample: Sample) -> list[FramePeople]:
            size = np.array(clip.frames.shape[2:0:-1])
            people = []
            for index in clip.frame_indices:
                points = (self._points + 0.1 * np.sin(index / 20)) * size
                keypoints = np.concatenate([points, np.ones((17, 1))], 1).astype(np.float32)[None]
                people.append(FramePeople(keypoints, box_around(keypoints, 0.1), np.ones(1, np.float32)))
            return people

    pose = PoseSection(source="benchmark-wanderer")
    motion = MotionSection(pose=pose, extract=ExtractSection(cache=str(path.with_suffix(".cache"))))
    started = time.perf_counter()
    with MotionExtractor(motion) as extractor:
        result = extractor.extract([Sample("video", str(path), "", "", "")])[0]
    assert isinstance(result, Extracted), result
    mine, decoder = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds = time.perf_counter() - started
    return {"frames": result.record.num_frames, "seconds": seconds, "mib": mine, "decoder_mib": decoder}


if __name__ == "__main__":
    main()
