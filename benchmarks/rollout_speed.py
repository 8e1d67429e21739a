"""Captions in groups of 8: the rollout engine against transformers' `generate`, in completion tokens a second.

    python benchmarks/rollout_speed.py [--videos 8] [--tokens 64] [--threads 1]

The same tiny random Qwen2.5-VL in fp32, the same toy videos from their mp4 files on, the same number of threads, 8
completions of at most --tokens tokens each, drawn at temperature 1. Each side runs in a process of its
own, one video before the clock starts:

- engine: all videos as one call of rollout.engine.VllmEngine; what it decoded and processed is counted;
- generate, groups: one video after another, decoded and processed once, its 8 completions in one `generate` call
  (num_return_sequences) with a KV cache;
- generate, singles: a call for every completion, which decodes and processes its video.

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from owlcap.types import Sample
    from rollout.settings import RolloutEngineSettings

GROUP_SIZE = 8
SIDES = {"engine": 0, "generate, groups": GROUP_SIZE, "generate, singles": 1}  # completions a call of `generate`
FLOOR = 8.0


def main() -> None:
    """Measure both sides, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "WORLD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        side, world = arguments.one
        samples, settings = read_world(Path(world), arguments.tokens, arguments.threads)
        at_once = SIDES[side]
        print(json.dumps(run_generate(samples, settings, at_once) if at_once else run_engine(samples, settings)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder), arguments.videos + 1)
        sides = {side: in_own_process(side, folder) for side in SIDES}
    speed = sides["engine"]["tokens_per_s"]
    ratios = {side: speed / figures["tokens_per_s"] for side, figures in sides.items()}
    print("| side | tokens/s | engine against it | s | tokens | videos decoded | videos processed |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for side, f in sides.items():
        print(
            f"| {side} | {f['tokens_per_s']:.0f} | {ratios[side]:.1f}x | {f['seconds']:.2f} | {f['tokens']} | "
            f"{f['decoded']} | {f['processed']} |"
        )
    figures = {"videos": arguments.videos, "threads": arguments.threads, "sides": sides}
    print(json.dumps({"benchmark": "rollout", **figures, "ratios": ratios, "floor": FLOOR}))


def in_own_process(side: str, world: str) -> dict[str, float]:
    """Figures of one side."""
    command = [sys.executable, *sys.argv, "--one", side, world]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_world(root: Path, num_videos: int) -> None:
    """Toy clips and a random policy with their vocabulary."""
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    toy = make_toy_world(root / "data", num_train=num_videos, num_validation=0, num_test=0, seed=1)
    make_tiny_model(root / "model", [sample.caption for sample in read_rows(toy.train)], seed=0)


def read_world(root: Path, num_tokens: int, threads: int) -> tuple[list[Sample], RolloutEngineSettings]:
    """The videos, and the engine on the policy."""
    from owlcap.config import RolloutSection, VideoSection
    from owlcap.data.rows import read_rows
    from rollout.settings import RolloutEngineSettings

    settings = RolloutEngineSettings(
        str(root / "model"),
        VideoSection(fps=4, min_frames=4, max_frames=16, min_pixels=56 * 56, max_pixels=112 * 112),
        rollout=RolloutSection(max_model_len=512, max_num_seqs=64, kv_cache_gib=0.25, max_new_tokens=num_tokens),
        dtype="fp32",
        max_prompt_tokens=384,
        threads=threads,
    )
    return read_rows(root / "data" / "train.jsonl"), settings


def run_engine(samples: list[Sample], settings: RolloutEngineSettings) -> dict[str, float]:
    """All groups in one call."""
    from owlcap.types import RolloutGroup, SamplingSettings
    from rollout.environment import engine_environment
    from rollout.settings import GenerationRequest

    os.environ.update(engine_environment(settings))
    from rollout.engine import VllmEngine

    length = settings.rollout.max_new_tokens
    engine = VllmEngine(settings)
    requests = [
        GenerationRequest(s, SamplingSettings(num_completions=GROUP_SIZE, max_new_tokens=length, seed=100 * i))
        for i, s in enumerate(samples)
    ]
    engine.generate(requests[:1])
    before, started = engine.counters, time.perf_counter()
    groups = engine.generate(requests[1:])
    seconds, after = time.perf_counter() - started, engine.counters
    engine.close()
    assert all(isinstance(group, RolloutGroup) for group in groups), groups
    decoded, processed = after.num_decoded - before.num_decoded, after.num_processed - before.num_processed
    assert decoded == processed == len(groups), (decoded, processed)
    return result(after.num_tokens - before.num_tokens, seconds, decoded, processed)


def run_generate(samples: list[Sample], settings: RolloutEngineSettings, at_once: int) -> dict[str, float]:
    """One video after another through transformers; `at_once` completions of it in a batch."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from owlcap.data.prompts import encode_prompt
    from owlcap.data.video import VideoLoader
    from owlcap.models.load import load_processor

    torch.set_num_threads(settings.threads)
    policy = Qwen2_5_VLForConditionalGeneration.from_pretrained(settings.model, dtype=torch.float32).eval()
    processor = load_processor(settings.model, settings.video)
    length = settings.rollout.max_new_tokens
    tokens = decoded = 0
    started = time.perf_counter()
    with VideoLoader(settings.video) as videos, torch.inference_mode():
        for number, sample in enumerate(samples):
            if number == 1:  # the first was there to warm up
                tokens, decoded, started = 0, 0, time.perf_counter()
            for _ in range(GROUP_SIZE // at_once):
                prompt = encode_prompt(processor, videos.load(sample), sample, settings.max_prompt_tokens)
                decoded += 1
                ids = torch.tensor([prompt.token_ids])
                assert prompt.vision is not None
                answer = policy.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    mm_token_type_ids=(ids == policy.config.video_token_id).int() * 2,
                    pixel_values_videos=torch.from_numpy(prompt.vision.pixel_values_videos),
                    video_grid_thw=torch.tensor([prompt.vision.video_grid_thw]),
                    second_per_grid_ts=torch.tensor([prompt.vision.second_per_grid_ts]),
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=at_once,
                    max_new_tokens=length,
                    use_cache=True,
                )
                drawn = answer[:, ids.shape[1] :]  # after its end a completion is padded; padding is not counted
                tokens += int((drawn != policy.config.text_config.pad_token_id).sum())
        seconds = time.perf_counter() - started
    return result(tokens, seconds, decoded, decoded)


def result(tokens: int, seconds: float, decoded: int, processed: int) -> dict[str, float]:
    """Figures of one side."""
    return {
        "tokens_per_s": tokens / seconds,
        "seconds": seconds,
        "tokens": tokens,
        "decoded": decoded,
        "processed": processed,
    }


if __name__ == "__main__":
    main()
