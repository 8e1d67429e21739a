"""One GRPO update of the learner: shared-prefix rows against the padded batch that other trainers run.

    python benchmarks/learner.py [--groups 4] [--rounds 2] [--threads 1]

Two shapes: prompt 280, completion 24 and prompt 1024, completion 128, both with groups of 8; about three quarters of
a prompt are video tokens. Each variant runs in a process of its own on the same random Qwen2.5-VL (12 M parameters,
8,192 tokens in the vocabulary; vision blocks frozen, projector not), in fp32, with the same completions, advantages
and loss, all groups in one micro batch:

- packed: one row a group, [prompt | completion 1 | ... | completion G], the vision tower once a group;
- padded: one row a completion, the vision tower once a group;
- padded, vision a row: the same with the vision tower once a row, as where a processor's output is repeated;
- TRL: the loss of its GRPOTrainer, with a video as the pictures of its time steps, each as many patches and tokens; two
  more tokens stand around each picture.

Completions have equal lengths, so nothing is padded in fact. All but TRL, which has other positions, must come to one
loss. Seconds are of an update (forward, loss, backward, AdamW). Memory is the peak of the process above what it held
before the update. The variants are run in turn, in several rounds: seconds and memory are medians, and ratios medians
of those within a round, so that they hold on a machine whose speed drifts. Prints a table and, as the last line, one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from owlcap.types import Prompt

VARIANTS = ("packed", "padded", "padded, vision a row", "TRL")
LossOf = Callable[[list["Group"]], "torch.Tensor"]
GROUP_SIZE = 8
REPEATS = 2  # updates that are timed, after one of the same size
VOCABULARY = 8192
MIB = 2**20


@dataclass(frozen=True)
class Shape:
    """Tokens of a prompt and of a completion, and the prompt's video grid (patches in time, height, width)."""

    prompt: int
    completion: int
    grid: tuple[int, int, int]


SHAPES = {"280+24": Shape(280, 24, (13, 8, 8)), "1024+128": Shape(1024, 128, (12, 16, 16))}


def main() -> None:
    """Measure every variant of every shape, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("SHAPE", "VARIANT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        shape, variant = arguments.one
        print(json.dumps(measure(SHAPES[shape], variant, arguments.groups, arguments.threads)))
        return
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for shape in SHAPES:
        rounds = [{name: in_own_process(shape, name) for name in VARIANTS} for _ in range(arguments.rounds)]
        figures[shape] = {
            name: summary([one[name] for one in rounds], [one["packed"] for one in rounds]) for name in VARIANTS
        }
    print("| shape | variant | s an update | completion tokens/s | against packed | peak MiB | against packed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for shape, variants in figures.items():
        for variant, f in variants.items():
            print(
                f"| {shape} | {variant} | {f['seconds']:.3f} | {f['tokens'] / f['seconds']:.0f} | {f['slower']:.1f}x | "
                f"{f['peak_mib']:.0f} | {f['larger']:.1f}x |"
            )
    losses = [[f["loss"] for name, f in variants.items() if name != "TRL"] for variants in figures.values()]
    assert all(max(row) - min(row) < 1e-4 for row in losses), f"the variants computed different losses: {losses}"
    print(json.dumps({"benchmark": "learner", "groups": arguments.groups, "figures": figures}))


def in_own_process(shape: str, variant: str) -> dict[str, float]:
    """Figures of one variant."""
    command = [sys.executable, *sys.argv, "--one", shape, variant]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def summary(found: list[dict[str, float]], packed: list[dict[str, float]]) -> dict[str, float]:
    """Medians of a variant's rounds, and of their ratios to the packed one's."""
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    for ratio, name in (("slower", "seconds"), ("larger", "peak_mib")):
        medians[ratio] = statistics.median(a[name] / b[name] for a, b in zip(found, packed, strict=True))
    return medians


def measure(shape: Shape, variant: str, num_groups: int, threads: int) -> dict[str, float]:
    """Seconds of an update, peak memory above the start, the loss, and completion tokens an update."""
    import torch

    torch.set_num_threads(threads)
    model = policy(plain=variant == "TRL")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    groups = [make_group(shape, model, seed) for seed in range(num_groups)]
    loss_of = trl_loss(model) if variant == "TRL" else partial(our_loss, model, variant=variant)
    update(loss_of, optimizer, groups[:1])  # buffers and optimizer state exist from here on
    before = reset_peak()
    loss = update(loss_of, optimizer, groups)
    peak_mib = (status("VmHWM") - before) / MIB
    started = time.perf_counter()
    for _ in range(REPEATS):
        update(loss_of, optimizer, groups)
    seconds = (time.perf_counter() - started) / REPEATS
    tokens = num_groups * GROUP_SIZE * shape.completion
    return {"seconds": seconds, "peak_mib": peak_mib, "loss": loss, "tokens": tokens}


def policy(plain: bool) -> Qwen2_5_VLForConditionalGeneration:
    """A random Qwen2.5-VL of 12 M parameters; `plain`: with transformers' own layers alone."""
    from tempfile import TemporaryDirectory

    from owlcap.models.load import freeze
    from owlcap.models.patch_embed import use_patch_product
    from owlcap.models.prefix_attention import use_shared_prefix_attention
    from owlcap.models.tiny import make_tiny_tokenizer, random_model, tiny_config
    from owlcap.models.vision_attention import use_even_attention

    with TemporaryDirectory() as folder:
        config = tiny_config(make_tiny_tokenizer(["A person waves."], folder))
    text, vision = config.text_config, config.vision_config
    text.vocab_size, text.hidden_size, text.intermediate_size, text.num_hidden_layers = VOCABULARY, 256, 1024, 6
    text.max_window_layers, text.num_attention_heads, text.num_key_value_heads = 6, 8, 4
    text.layer_types = ["full_attention"] * 6
    vision.out_hidden_size = 256
    config.architectures = None
    model = random_model(config, seed=0)
    if not plain:
        use_patch_product(model)
        use_even_attention(model)
        use_shared_prefix_attention(model)
    freeze(model, vision=True, projector=False)
    return model.train()


@dataclass(frozen=True)
class Group:
    """One prompt's completions and their advantages."""

    prompt: Prompt
    completions: list[list[int]]
    advantages: list[float]


def make_group(shape: Shape, model: Qwen2_5_VLForConditionalGeneration, seed: int) -> Group:
    """A prompt with a random video, random completions of one length, and advantages that add up to 0."""
    import numpy as np

    from owlcap.types import Prompt, VisionInputs

    config, draw = model.config, random.Random(seed)
    t, h, w = shape.grid
    num_video = t * h * w // 4
    patches = np.random.default_rng(seed).standard_normal((t * h * w, 3 * 2 * 14 * 14), dtype=np.float32)

    def words(count: int) -> list[int]:
        return [draw.randrange(1000, VOCABULARY) for _ in range(count)]

    text = words(shape.prompt - num_video - 2)
    video = [config.vision_start_token_id, *[config.video_token_id] * num_video, config.vision_end_token_id]
    prompt = Prompt((*text[:8], *video, *text[8:]), VisionInputs(patches, shape.grid, 0.5))
    advantages = [(-1.0) ** i for i in range(GROUP_SIZE)]
    return Group(prompt, [words(shape.completion) for _ in range(GROUP_SIZE)], advantages)


def update(loss_of: LossOf, optimizer: torch.optim.Optimizer, groups: list[Group]) -> float:
    """One optimizer step on all groups; the loss."""
    loss = loss_of(groups)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return loss.item()


def our_loss(model: Qwen2_5_VLForConditionalGeneration, groups: list[Group], variant: str) -> torch.Tensor:
    """Of all groups as one micro batch."""
    import torch

    from owlcap.config import AlgorithmSection
    from owlcap.models.logprobs import completion_logprobs, vision_features
    from owlcap.models.packing import pack_groups, pad_groups
    from rl.losses import BatchSize, policy_loss

    rows = [(group.prompt, group.completions) for group in groups]
    batch = (pack_groups if variant == "packed" else pad_groups)(rows, model.config)
    features = None
    if variant == "padded, vision a row":  # every row's features are computed; they are equal, so one copy is used
        features = list(vision_features(model, [g.prompt.vision for g in groups for _ in g.completions])[::GROUP_SIZE])
    logprobs_BT = torch.stack(batch.split(completion_logprobs(model, batch, features=features)))
    loss = policy_loss(
        logprobs_BT,
        logprobs_BT.detach(),
        logprobs_BT.detach() - 0.1,
        torch.tensor([advantage for group in groups for advantage in group.advantages]),
        torch.ones_like(logprobs_BT),
        cfg=AlgorithmSection(),
        size=BatchSize(len(logprobs_BT), logprobs_BT.numel()),
        max_new_tokens=logprobs_BT.shape[1],
    )
    return loss.loss


def trl_loss(model: Qwen2_5_VLForConditionalGeneration) -> LossOf:
    """The loss of TRL's trainer, which is made with a processor of its own and never trains."""
    from tempfile import mkdtemp

    import torch
    from datasets import Dataset
    from transformers import AutoProcessor
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from owlcap.models.tiny import make_tiny_model

    folder = Path(mkdtemp())
    make_tiny_model(folder / "model", ["A person waves."], seed=0)
    config = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=GROUP_SIZE,
        num_generations=GROUP_SIZE,
        beta=0.0,  # set below: a reference model is not wanted, its logprobs are given
        loss_type="grpo",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=model,
        args=config,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "Describe the video."}]}]),
        processing_class=AutoProcessor.from_pretrained(folder / "model"),
    )
    trainer.beta = 0.04
    trainer.current_gradient_accumulation_steps = 1
    shutil.rmtree(folder)

    def loss(groups: list[Group]) -> torch.Tensor:
        inputs = trl_inputs(model, groups)
        with torch.no_grad():  # any values do, and cost nothing
            shape = inputs["completion_ids"].shape
            inputs["ref_per_token_logps"] = torch.full(shape, -9.0)
        return trainer._compute_loss(trainer.model, inputs)

    return loss


def trl_inputs(model: Qwen2_5_VLForConditionalGeneration, groups: list[Group]) -> dict[str, Any]:
    """A padded batch as TRL makes it: each row with the pictures of its own."""
    import torch

    config = model.config
    prompts, completions, pixels, grids, advantages = [], [], [], [], []
    for group in groups:
        t, h, w = group.prompt.vision.video_grid_thw
        text = [token for token in group.prompt.token_ids if token != config.video_token_id]
        picture = [config.vision_start_token_id, *[config.image_token_id] * (h * w // 4), config.vision_end_token_id]
        row = [*text[:8], *picture * t, *text[10:]]  # in place of the video's start and end
        for completion, advantage in zip(group.completions, group.advantages, strict=True):
            prompts.append(row)
            completions.append(completion)
            pixels.append(torch.from_numpy(group.prompt.vision.pixel_values_videos))
            grids += [[1, h, w]] * t
            advantages.append(advantage)
    prompt_ids, completion_ids = torch.tensor(prompts), torch.tensor(completions)
    ids = torch.cat([prompt_ids, completion_ids], dim=1)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": torch.ones_like(prompt_ids),
        "completion_ids": completion_ids,
        "completion_mask": torch.ones_like(completion_ids),
        "advantages": torch.tensor(advantages),
        "pixel_values": torch.cat(pixels),
        "image_grid_thw": torch.tensor(grids),
        "num_images": [group.prompt.vision.video_grid_thw[0] for group in groups for _ in group.completions],
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "num_items_in_batch": torch.tensor(completion_ids.numel()),
    }


def reset_peak() -> int:
    """Forget the highest memory so far; the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name: str) -> int:
    """A figure of this process from the kernel, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
