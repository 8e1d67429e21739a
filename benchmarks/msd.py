"""Motion Synergetic Decoding: the time of a decoding step of pairs against the same step of one branch.

    python benchmarks/msd.py [--tokens 24] [--threads 1] [--pairs 1 4] [--repeats 3] [--hidden 1024] [--layers 8]

A random Qwen2.5-VL with a motion merger, fp32, with a vocabulary of Qwen's kind of size, so that as in real models most
of a step is reading weights. Sides take turns, and a step's time is the median over all steps but the first (which
takes in the prompt). With one thread it is processor time, which other programs on the machine do not change; with
several the clock's:

- one branch: the visual rows alone, greedily;
- pair: visual and motion rows in one batch with one cache, scored by MSD;
- two runs: visual rows, then motion rows, each with a cache of its own (their sum, without any scoring).

Prints a table and, as the last line, one JSON object. The floor is for one clip at a time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    from owlcap.inference.paired import PairPrompt

FLOOR = 1.3  # a pair's step against one branch's
PAPER = 4.9
VOCABULARY = 32_000
NUM_OVERLAYS = 8


def main() -> None:
    """Measure all sides, for every number of threads and of pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    arguments = parser.parse_args()
    model, processor = make_model(arguments.hidden, arguments.layers)
    print("| threads | clips | one branch, ms | pair, ms | two runs, ms | pair / one branch | two runs / one branch |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for count in arguments.pairs:
            sides = measure(model, make_pairs(processor, count), arguments.tokens, arguments.repeats)
            row = {"threads": threads, "clips": count, **{f"{name}_ms": 1000 * s for name, s in sides.items()}}
            row["ratio"], row["two_runs_ratio"] = (sides[name] / sides["one"] for name in ("pair", "two"))
            rows.append(row)
            print(
                f"| {threads} | {count} | {row['one_ms']:.1f} | {row['pair_ms']:.1f} | {row['two_ms']:.1f} | "
                f"{row['ratio']:.2f}x | {row['two_runs_ratio']:.2f}x |",
                flush=True,
            )
    size = {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": VOCABULARY}
    single = max(row["ratio"] for row in rows if row["clips"] == min(arguments.pairs))
    print(json.dumps({"benchmark": "msd", **size, "rows": rows, "ratio": single, "floor": FLOOR, "paper": PAPER}))


def make_model(hidden: int, layers: int) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """A random model of some hundred million parameters, and the tiny model's processor."""
    from owlcap.models.patch_embed import use_patch_product
    from owlcap.models.tiny import make_tiny_processor, make_tiny_tokenizer, random_model, tiny_config
    from owlcap.models.vision_attention import use_even_attention

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tiny_tokenizer(["Describe the video."], folder)
    config = tiny_config(tokenizer)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.vocab_size = hidden, 11 * hidden // 4, VOCABULARY
    text.num_hidden_layers = text.max_window_layers = layers
    text.num_attention_heads, text.num_key_value_heads = hidden // 32, hidden // 128
    text.layer_types = ["full_attention"] * layers
    config.vision_config.out_hidden_size = hidden
    model = random_model(config, seed=0, motion=True).eval()
    use_patch_product(model)
    use_even_attention(model)
    return model, make_tiny_processor(tokenizer)


def make_pairs(processor: Qwen2_5_VLProcessor, count: int) -> list[PairPrompt]:
    """Clips of 12 frames of 112 x 112 with eight overlays of the same size."""
    from owlcap.data.prompts import encode_prompt
    from owlcap.inference.paired import PairPrompt
    from owlcap.types import Sample, VideoClip

    rng, pairs = np.random.default_rng(0), []
    sample = Sample("clip", "clip.mp4", "Describe the video.", "", "")
    for _ in range(count):
        frames = rng.integers(0, 256, (12, 112, 112, 3), np.uint8)
        overlays = tuple(rng.integers(0, 256, (112, 112, 3), np.uint8) for _ in range(NUM_OVERLAYS))
        views = (VideoClip(frames, 6.0, 2.0, 12, tuple(range(12)), shown) for shown in ((), overlays))
        pairs.append(PairPrompt(*(encode_prompt(processor, view, sample, 2048) for view in views)))
    return pairs


def measure(
    model: Qwen2_5_VLForConditionalGeneration, pairs: Sequence[PairPrompt], num_tokens: int, repeats: int
) -> dict[str, float]:
    """Median seconds of a step of each side."""
    from owlcap.config_motion import DecodingSection
    from owlcap.inference.paired import SynergyProcessor, decode, num_vision_tokens
    from owlcap.models.logprobs import vision_features

    with torch.inference_mode():
        both = vision_features(model, [pair.motion.vision for pair in pairs])
    video = [one[-num_vision_tokens(pair.visual, model) :] for one, pair in zip(both, pairs, strict=True)]
    visual, motion = [pair.visual for pair in pairs], [pair.motion for pair in pairs]
    interleaved = [prompt for pair in pairs for prompt in (pair.visual, pair.motion)]
    features = [one for two in zip(video, both, strict=True) for one in two]

    def run(prompts: list, vision: Sequence[torch.Tensor], *, paired: bool) -> list[float]:
        times: list[float] = []
        processors: list[Callable] = [clock(times)]
        if paired:
            processors.append(SynergyProcessor(DecodingSection()))
        decode(model, prompts, vision, processors, [num_tokens] * len(prompts), end_ids=())
        return [after - before for before, after in pairwise(times)]

    steps: dict[str, list[float]] = {"one": [], "pair": [], "motion": []}
    for _ in range(repeats):
        steps["one"] += run(visual, video, paired=False)
        steps["pair"] += run(interleaved, features, paired=True)
        steps["motion"] += run(motion, both, paired=False)
    medians = {name: median(values) for name, values in steps.items()}
    return {"one": medians["one"], "pair": medians["pair"], "two": medians["one"] + medians["motion"]}


def clock(times: list[float]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A logits processor that notes when each step's logits are there."""

    def note(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        times.append(time.process_time() if torch.get_num_threads() == 1 else time.perf_counter())
        return scores

    return note


if __name__ == "__main__":
    main()
