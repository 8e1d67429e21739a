"""A weight sync's seconds against its bytes, and against a plain memcpy of the same bytes.

    python benchmarks/weight_sync.py [--layers 16] [--width 768] [--engines 1] [--repeats 5] [--threads 1]

The weights are those of a random Qwen2.5-VL, in fp32, on a CPU. The real parts one after another: the learner's tensors
become buckets (gather, with their checksums), buckets go into Ray's object store (put), and vLLM engines in Ray actors
verify and load them, all at once (load). Two parts of the load are measured apart, in this process: its checksum, and
packing the matrices into the form in which vLLM's CPU layers keep them, which is the least that a load can take.
The memcpy is numpy's, of the same arrays into memory that was written before.

Seconds are medians; the first sync is left out. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLConfig

T = TypeVar("T")
TEXTS = ("a person waves beside a red ball", "Describe the video.")
BUCKET_BYTES = 128 * 2**20
FLOOR = 3.0  # times the memcpy


def main() -> None:
    """Measure syncs of one random model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), arguments.layers, arguments.width)
        num_bytes, seconds = measure(model, arguments.engines, arguments.repeats, arguments.threads)
    memcpy = seconds["memcpy"]
    print(f"{num_bytes / 2**20:.0f} MiB, {arguments.engines} engine(s)")
    print("| part | s | GB/s | memcpy |")
    print("| --- | ---: | ---: | ---: |")
    for part, took in seconds.items():
        print(f"| {part} | {took:.3f} | {num_bytes / took / 1e9:.2f} | {took / memcpy:.2f}x |")
    ratio = seconds["sync"] / memcpy
    figures = {"num_bytes": num_bytes, "engines": arguments.engines, "seconds": seconds}
    print(json.dumps({"benchmark": "weight_sync", **figures, "memcpy_ratio": ratio, "floor": FLOOR}))


def make_model(folder: Path, layers: int, width: int) -> Path:
    """A complete model folder: the tiny model with a larger language model."""
    from owlcap.models.tiny import make_tiny_model, random_model

    make_tiny_model(folder, TEXTS, seed=0)
    random_model(config_of(folder, layers, width), seed=0).save_pretrained(folder)
    return folder


def config_of(folder: Path, layers: int, width: int) -> Qwen2_5_VLConfig:
    """The folder's configuration with another depth and width."""
    from transformers import Qwen2_5_VLConfig

    config = Qwen2_5_VLConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    heads = width // 64
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = width, 3 * width, layers
    text.num_attention_heads, text.num_key_value_heads = heads, heads // 2
    text.max_window_layers, text.layer_types = layers, ["full_attention"] * layers
    text.rope_parameters = dict(text.rope_parameters) | {"mrope_section": [8, 12, 12]}
    vision.out_hidden_size = width
    return config


def measure(model: Path, engines: int, repeats: int, threads: int) -> tuple[int, dict[str, float]]:
    """Bytes of the weights, and median seconds of each part."""
    import numpy as np
    import ray
    import torch

    from owlcap.config import ClusterSection, ModelSection, RolloutSection
    from owlcap.models.load import load_policy, policy_state_dict
    from owlcap.training.buckets import WeightBucket, check_buckets
    from owlcap.training.cluster import start_ray
    from rl.weight_sync import as_buckets
    from rollout.environment import engine_environment
    from rollout.pool import RolloutPool
    from rollout.settings import RolloutEngineSettings

    torch.set_num_threads(threads)
    policy = load_policy(ModelSection(path=str(model), dtype="fp32", gradient_checkpointing=False))
    weights = [(name, tensor.detach()) for name, tensor in policy_state_dict(policy)]
    num_bytes = sum(tensor.nbytes for _, tensor in weights)
    copies = [np.ones_like(tensor.numpy()) for _, tensor in weights]
    took: dict[str, list[float]] = {}

    def gather() -> list[WeightBucket]:
        return list(as_buckets(cut(weights)))

    def copy() -> None:
        for (_, tensor), target in zip(weights, copies, strict=True):
            np.copyto(target, tensor.numpy())

    rollout = RolloutSection(max_model_len=256, max_num_seqs=8, kv_cache_gib=0.0625, max_new_tokens=16)
    settings = RolloutEngineSettings(str(model), rollout=rollout, dtype="fp32", max_prompt_tokens=128, threads=threads)
    cluster = ClusterSection(rollout_workers=engines, cpus_per_rollout=0.5)
    os.environ.update(engine_environment(settings))  # before vLLM is imported here, for its packing
    with start_ray(cluster, num_cpus=4), RolloutPool(settings, cluster) as pool:
        for version in range(1, repeats + 2):
            with torch.no_grad():
                weights[0][1].add_(1.0)  # no two syncs carry the same weights
            timed(took, "memcpy", copy)
            buckets = timed(took, "gather and checksum", gather)
            refs = timed(took, "put", lambda buckets=buckets: [ray.put(bucket) for bucket in buckets])
            timed(took, "load", lambda refs=refs, version=version: pool.sync(refs, version))
            timed(took, "of it, checksum", lambda refs=refs: check_buckets(ray.get(ref) for ref in refs))
            timed(took, "of it, packing", lambda: pack(weights))
            assert set(pool.versions()) == {version}
    medians = {part: statistics.median(seconds[1:]) for part, seconds in took.items()}
    return num_bytes, medians | {"sync": sum(medians[part] for part in ("gather and checksum", "put", "load"))}


def pack(weights: list[tuple[str, torch.Tensor]]) -> None:
    """Pack each matrix as vLLM's linear layers do, one after another."""
    from vllm import _custom_ops

    for name, tensor in weights:
        if tensor.ndim == 2 and "embed" not in name:
            _custom_ops.create_onednn_mm(tensor.t(), 32)


def cut(weights: list[tuple[str, torch.Tensor]]) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """The weights in lists of about BUCKET_BYTES, as the learner's engine gives them."""
    bucket: list[tuple[str, torch.Tensor]] = []
    for name, tensor in weights:
        bucket.append((name, tensor))
        if sum(t.nbytes for _, t in bucket) >= BUCKET_BYTES:
            yield bucket
            bucket = []
    yield bucket


def timed(took: dict[str, list[float]], part: str, work: Callable[[], T]) -> T:
    """Do `work` and note its seconds."""
    started = time.perf_counter()
    result = work()
    took.setdefault(part, []).append(time.perf_counter() - started)
    return result


if __name__ == "__main__":
    main()
