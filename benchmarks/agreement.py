"""How far the engine's logprobs are from the learner's on toy videos, in fp32, and mismatch_kl.

    python benchmarks/agreement.py [--videos 8] [--tokens 64]

A vLLM engine samples 8 captions of every video, with the logprob of every token; the learner's packed forward computes
them again from the same prompts, with the same weights (a tiny random Qwen2.5-VL). mismatch_kl is the k3 estimate of
KL(sampler, learner) a token, as every training step reports it.

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

GROUP_SIZE = 8
FLOOR = 1e-4


def main() -> None:
    """Measure one batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.videos, arguments.tokens)
    print("| videos | captions | tokens | largest difference | mean difference | mismatch_kl |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {arguments.videos} | {arguments.videos * GROUP_SIZE} | {figures['num_tokens']:.0f} | "
        f"{figures['largest']:.1e} | {figures['mean']:.1e} | {figures['mismatch_kl']:.1e} |"
    )
    print(json.dumps({"benchmark": "agreement", "videos": arguments.videos, **figures, "floor": FLOOR}))


def measure(root: Path, num_videos: int, num_tokens: int) -> dict[str, float]:
    """Differences over all sampled tokens."""
    import torch

    from owlcap.config import ModelSection, RolloutSection, VideoSection
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.load import load_policy
    from owlcap.models.logprobs import completion_logprobs
    from owlcap.models.packing import pack_group
    from owlcap.models.tiny import make_tiny_model
    from owlcap.types import Prompt, RolloutGroup, SamplingSettings
    from rl.losses import k3
    from rollout.environment import engine_environment
    from rollout.settings import GenerationRequest, RolloutEngineSettings

    toy = make_toy_world(root / "data", num_train=num_videos, num_validation=0, num_test=0, seed=1)
    samples = read_rows(toy.train)
    model = make_tiny_model(root / "model", [sample.caption for sample in samples], seed=0)
    settings = RolloutEngineSettings(
        str(model),
        VideoSection(fps=4, min_frames=4, max_frames=16, min_pixels=56 * 56, max_pixels=112 * 112),
        rollout=RolloutSection(max_model_len=512, max_num_seqs=32, kv_cache_gib=0.125, max_new_tokens=num_tokens),
        dtype="fp32",
        max_prompt_tokens=384,
    )
    os.environ.update(engine_environment(settings))
    from rollout.engine import VllmEngine

    engine = VllmEngine(settings)
    requests = [
        GenerationRequest(sample, SamplingSettings(num_completions=GROUP_SIZE, max_new_tokens=num_tokens, seed=100 * i))
        for i, sample in enumerate(samples)
    ]
    groups = engine.generate(requests)
    engine.close()
    policy = load_policy(ModelSection(path=str(model), dtype="fp32", gradient_checkpointing=False))
    sampled, learned = [], []
    for group in groups:
        assert isinstance(group, RolloutGroup), group
        assert isinstance(group.prompt, Prompt)
        batch = pack_group(group.prompt, [c.token_ids for c in group.completions], policy.config)
        with torch.no_grad():
            learned.append(completion_logprobs(policy, batch))
        sampled.append(torch.tensor([logprob for c in group.completions for logprob in c.logprobs]))
    theirs, ours = torch.cat(sampled).double(), torch.cat(learned).double()
    difference = (theirs - ours).abs()
    return {
        "num_tokens": len(ours),
        "largest": float(difference.max()),
        "mean": float(difference.mean()),
        "mismatch_kl": float(k3(theirs, ours).mean()),
    }


if __name__ == "__main__":
    main()
