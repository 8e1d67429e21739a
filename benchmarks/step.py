"""A whole GRPO step, owlcap against TRL's GRPOTrainer: sampling, reward, update.

    python benchmarks/step.py [--steps 4]

The same tiny random Qwen2.5-VL in fp32, the same clips of 12 frames of 168 x 168 (216 tokens), 8 prompts a step, 8
captions each of at most 60 tokens, the same reward function (share of vowels), KL to a frozen reference, on this
machine's cores; without a GPU, and so TRL samples by transformers' generate. Each trainer runs in a process of its own;
its first two steps are left out.

TRL takes images, not videos: a clip reaches it as 6 pictures of 168 x 168, each as many patches and tokens as 2 of
the clip's frames, so that vision tower and language model have as much to do (12 more tokens around the pictures).

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from toy_run import MAX_NEW_TOKENS, NUM_FRAMES, make_world, rollout, settings

TRAINERS = ("owlcap", "TRL")
PROMPTS, GROUP_SIZE = 8, 8
SIDE = 168  # of a frame, in pixels
WARM_UP = 2  # steps
REWARD = """
def vowels(completions, **_):
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in completions]
"""
OUR_REWARD = """
def vowels(captions):
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in captions]
"""


def main() -> None:
    """Measure both, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--trainer", choices=TRAINERS)
    parser.add_argument("--world")
    arguments = parser.parse_args()
    if arguments.trainer:
        train = {"owlcap": train_owlcap, "TRL": train_trl}[arguments.trainer]
        train(Path(arguments.world), arguments.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        figures = [measure(world, trainer, arguments.steps) for trainer in TRAINERS]
    ours, theirs = figures
    print("| trainer | s/step | tokens a caption | faster |")
    print("| --- | ---: | ---: | ---: |")
    for f in figures:
        print(f"| {f['trainer']} | {f['step_s']:.2f} | {f['tokens']:.1f} | {theirs['step_s'] / f['step_s']:.1f}x |")
    faster = theirs["step_s"] / ours["step_s"]
    print(json.dumps({"benchmark": "step", "steps": arguments.steps, "figures": figures, "faster": faster}))


def measure(world: Path, trainer: str, steps: int) -> dict[str, Any]:
    """Seconds of a step, and tokens of a caption."""
    command = [sys.executable, __file__, "--trainer", trainer, "--world", str(world), "--steps", str(steps)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    rows = json.loads((world / f"{trainer}.json").read_text())
    return {
        "trainer": trainer,
        "step_s": statistics.median(row["seconds"] for row in rows[WARM_UP:]),
        "tokens": statistics.fmean(row["tokens"] for row in rows[WARM_UP:]),
    }


def train_owlcap(world: Path, steps: int) -> None:
    """`owlcap rl`."""
    from owlcap.config import RlRun
    from rl.trainer import run_rl

    (world / "reward.py").write_text(OUR_REWARD)
    cfg = settings(
        world,
        "owlcap",
        steps + WARM_UP,
        side=SIDE,
        cluster={
            "cpus_per_learner": 0.9,
            "cpus_per_rollout": 0.9,
            "cpus_per_reward": 0.1,
            "threads_per_actor": os.cpu_count(),
        },
        rollout=rollout(PROMPTS, GROUP_SIZE, max_num_seqs=64),
        rewards={"terms": [{"name": f"{world}/reward.py:vowels"}]},
    )
    run_rl(RlRun.model_validate(cfg))
    rows = [json.loads(line) for line in (world / "owlcap" / "metrics.jsonl").read_text().splitlines()]
    told = [{"seconds": row["seconds/step"], "tokens": row["rollout/tokens"]} for row in rows]
    (world / "owlcap.json").write_text(json.dumps(told))


def train_trl(world: Path, steps: int) -> None:
    """TRL's GRPOTrainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, TrainerCallback
    from trl.trainer.grpo_trainer import GRPOTrainer

    torch.set_num_threads(os.cpu_count() or 1)
    space: dict[str, Any] = {}
    exec(REWARD, space)
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(world / "model", dtype=torch.float32)
    model.model.visual.requires_grad_(False)
    rows = [
        {
            "prompt": [{"role": "user", "content": "Describe the video."}],
            "images": pictures(world / "data" / json.loads(line)["videos"][0]),
        }
        for line in (world / "data" / "train.jsonl").read_text().splitlines()
    ]
    processor = AutoProcessor.from_pretrained(world / "model")
    processor.image_processor.size = {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    trainer = GRPOTrainer(
        model=model,
        args=trl_config(world, steps),
        reward_funcs=lambda completions, **_: space["vowels"]([one[0]["content"] for one in completions]),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        callbacks=[Clock()],
    )
    trainer.train()
    length = "completions/mean_length"
    lengths = [row[length] for row in trainer.state.log_history if length in row]
    told = [{"seconds": s, "tokens": tokens} for s, tokens in zip(seconds, lengths, strict=True)]
    (world / "TRL.json").write_text(json.dumps(told))


def trl_config(world: Path, steps: int) -> Any:
    """Settings of TRL's trainer."""
    from trl.trainer.grpo_config import GRPOConfig

    return GRPOConfig(
        output_dir=str(world / "trl"),
        per_device_train_batch_size=PROMPTS * GROUP_SIZE,
        num_generations=GROUP_SIZE,
        max_completion_length=MAX_NEW_TOKENS,
        max_steps=steps + WARM_UP,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        temperature=1.0,
        beta=0.04,
        loss_type="grpo",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
    )


def pictures(video: Path) -> list[Any]:
    """Every second frame of a clip, as TRL takes them."""
    from decord import VideoReader
    from PIL import Image

    frames = VideoReader(str(video))
    places = [i * len(frames) // NUM_FRAMES for i in range(0, NUM_FRAMES, 2)]
    return [Image.fromarray(frames[place].asnumpy()).resize((SIDE, SIDE)) for place in places]


if __name__ == "__main__":
    main()
