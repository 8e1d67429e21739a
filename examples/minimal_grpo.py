"""GRPO with CSER, the whole loop in one process and one file.

    python examples/minimal_grpo.py runs/demo/sft/model runs/demo/data/train.jsonl --steps 20

(`make demo OUT=runs/demo` makes both.) This is what `owlcap rl` does, without Ray, DeepSpeed, several
engines, checkpoints or recovery: read this file to understand the algorithm, use `owlcap rl` to train.

    clips ─> vLLM: G captions each, with the sampler's logprobs          engine.generate
          ─> CSER of every caption against the clip's reference          score
          ─> advantage of a caption within its group                     advantages
          ─> logprobs under policy and frozen reference                  completion_logprobs
          ─> one optimizer step on the GRPO loss                         grpo_loss
          ─> new weights into vLLM                                       engine.load_weights

Shapes: G captions of one clip, N tokens of all captions of one clip.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from owlcap.config import ModelSection, RewardsSection, RewardTerm, RolloutSection, VideoSection
from owlcap.data.rows import read_rows
from owlcap.models.load import load_policy, policy_state_dict
from owlcap.models.logprobs import completion_logprobs
from owlcap.models.packing import PackedBatch, pack_group
from owlcap.types import RewardBreakdown, RolloutGroup, Sample, SamplingSettings
from rewards.suite import RewardSuite, make_suite
from rollout.environment import engine_environment
from rollout.settings import GenerationRequest, RolloutEngineSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from rollout.engine import VllmEngine

# The toy clips whole: 12 frames of 56 x 56.
VIDEO = VideoSection(
    fps=4, min_frames=12, max_frames=12, min_pixels=3136, max_pixels=3136, total_pixels=12 * 3136, deadline_s=20
)
REWARDS = RewardsSection(terms=(RewardTerm(name="cser"),))  # judged by the offline lexical judge


def main() -> None:
    """Train for a few steps and print one line a step."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    order = random.Random(args.seed)
    samples = read_rows(args.data)

    engine = start_engine(args)
    suite = make_suite(REWARDS)
    policy = load(args.model, train=True)
    reference = load(args.model, train=False)
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)

    for step in range(args.steps):
        groups = generate(engine, order.sample(samples, min(args.prompts, len(samples))), args, step)
        scores = [score(suite, group) for group in groups]

        optimizer.zero_grad()
        largest_mismatch = 0.0
        for group, group_scores in zip(groups, scores, strict=True):
            batch = pack(group, policy)
            loss, mismatch = grpo_loss(policy, reference, group, batch, advantages(group_scores), args.beta)
            (loss / len(groups)).backward()  # groups are equally large: the mean of their means is the step's mean
            largest_mismatch = max(largest_mismatch, mismatch)
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

        engine.load_weights([[(name, w.cpu().numpy()) for name, w in policy_state_dict(policy)]], version=step + 1)
        report(step, groups, scores, float(norm), largest_mismatch)
    engine.close()


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="GRPO with CSER in one process.")
    parser.add_argument("model", type=Path, help="a policy that already writes captions (Hugging Face folder)")
    parser.add_argument("data", type=Path, help="training rows (JSONL)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=8, help="clips a step")
    parser.add_argument("--group", type=int, default=8, help="captions a clip (G)")
    parser.add_argument("--max-new-tokens", type=int, default=56)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--beta", type=float, default=0.01, help="weight of the KL to the reference")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def start_engine(args: argparse.Namespace) -> VllmEngine:
    """vLLM in this process."""
    settings = RolloutEngineSettings(
        model=str(args.model),
        video=VIDEO,
        rollout=RolloutSection(group_size=args.group, max_model_len=256, max_num_seqs=64, kv_cache_gib=0.25),
        dtype="fp32",
        max_prompt_tokens=256 - args.max_new_tokens,
    )
    os.environ.update(engine_environment(settings))  # vLLM reads these when it is imported
    from rollout.engine import VllmEngine

    return VllmEngine(settings)


def load(folder: Path, *, train: bool) -> Qwen2_5_VLForConditionalGeneration:
    """The policy, or a frozen copy of it as reference. The vision tower is frozen in both."""
    model = load_policy(
        ModelSection(path=str(folder), dtype="fp32", freeze_projector=True, gradient_checkpointing=False)
    )
    return model.train() if train else model.requires_grad_(False)


def generate(engine: VllmEngine, samples: Sequence[Sample], args: argparse.Namespace, step: int) -> list[RolloutGroup]:
    """G captions of each clip. A clip that cannot be read is reported and left out."""
    requests = [
        GenerationRequest(
            sample,
            SamplingSettings(
                num_completions=args.group,
                max_new_tokens=args.max_new_tokens,
                seed=1000 * (step * args.prompts + i) + args.seed,  # completion g of a request draws from seed + g
            ),
        )
        for i, sample in enumerate(samples)
    ]
    groups = []
    for result in engine.generate(requests):
        if isinstance(result, RolloutGroup):
            groups.append(result)
        else:
            print(f"left out {result.sample.id}: {result.reason}")
    return groups


def score(suite: RewardSuite, group: RolloutGroup) -> list[RewardBreakdown]:
    """CSER of each caption. The lexical judge scores every text, so nothing here is unscored."""
    captions = [completion.text for completion in group.completions]
    scores = asyncio.run(suite.score_group(group.sample, captions))
    return [one for one in scores if isinstance(one, RewardBreakdown)]


def advantages(scores: Sequence[RewardBreakdown]) -> torch.Tensor:
    """How much better each caption is than its group: (r - mean) / (std + 1e-4), [G]."""
    rewards = torch.tensor([one.total for one in scores])
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def pack(group: RolloutGroup, policy: Qwen2_5_VLForConditionalGeneration) -> PackedBatch:
    """Prompt and captions as one sequence [prompt | caption 1 | ... | caption G] that shares the prompt."""
    return pack_group(group.prompt, [completion.token_ids for completion in group.completions], policy.config)


def grpo_loss(
    policy: Qwen2_5_VLForConditionalGeneration,
    reference: Qwen2_5_VLForConditionalGeneration,
    group: RolloutGroup,
    batch: PackedBatch,
    advantages_G: torch.Tensor,
    beta: float,
) -> tuple[torch.Tensor, float]:
    """The group's loss, and the largest difference between vLLM's logprobs and ours.

    - mean over captions of mean over tokens of [ ratio * A - beta * KL ], where the ratio exp(logp - stopgrad(logp))
    is 1 and carries the gradient, and KL is estimated without bias by r - log r - 1 with r = p_reference / p_policy.
    """
    logprobs_N = completion_logprobs(policy, batch)
    with torch.no_grad():
        reference_N = completion_logprobs(reference, batch)
    sampler_N = torch.tensor([logprob for one in group.completions for logprob in one.logprobs])

    lengths = torch.tensor(batch.lengths)
    advantages_N = advantages_G.repeat_interleave(lengths)
    ratio_N = torch.exp(logprobs_N - logprobs_N.detach())
    log_r_N = reference_N - logprobs_N
    kl_N = log_r_N.exp() - log_r_N - 1
    objective_N = ratio_N * advantages_N - beta * kl_N

    means_G = torch.stack([tokens.mean() for tokens in batch.split(objective_N)])
    return -means_G.mean(), (logprobs_N.detach() - sampler_N).abs().max().item()


def report(
    step: int, groups: Sequence[RolloutGroup], scores: Sequence[Sequence[RewardBreakdown]], norm: float, mismatch: float
) -> None:
    """One line of figures, and the best caption of the first clip."""
    flat = [one for group in scores for one in group]
    figures = {name: sum(one.metrics[name] for one in flat) / len(flat) for name in ("cser", "f1", "length_words")}
    line = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
    best = max(range(len(scores[0])), key=lambda i: scores[0][i].total)
    print(f"step {step + 1:3d}  {line}  gradient {norm:.2f}  vLLM vs learner {mismatch:.1e}")
    print(f"          {groups[0].completions[best].text}", flush=True)


if __name__ == "__main__":
    main()
