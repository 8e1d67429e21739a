"""What the benchmarks of whole runs share: a toy world with a tiny random policy, and a run's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NUM_FRAMES = 12
MAX_NEW_TOKENS = 60


def make_world(root: Path) -> Path:
    """Toy clips in `root`/data and a random policy with their vocabulary in `root`/model; `root`."""
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    toy = make_toy_world(root / "data", num_train=64, num_validation=4, num_test=4, seed=1, workers=2, progress=None)
    texts = [text for row in read_rows(toy.train) for text in (row.caption, row.reference)]
    make_tiny_model(root / "model", texts, seed=0)
    return root


def settings(world: Path, name: str, steps: int, *, side: int = 56, **sections: Any) -> dict[str, Any]:
    """Of an RL run in `world`/`name`; `sections` win over what is here.

    Args:
        side: of a frame, in pixels.
    """
    return {
        "name": name,
        "run_dir": str(world),
        "num_steps": steps,
        "model": {
            "path": str(world / "model"),
            "dtype": "fp32",
            "freeze_projector": True,
            "gradient_checkpointing": False,
        },
        "video": {
            "fps": 6,
            "min_frames": NUM_FRAMES,
            "max_frames": NUM_FRAMES,
            "min_pixels": side**2,
            "max_pixels": side**2,
            "total_pixels": NUM_FRAMES * side**2,
        },
        "data": {"train": str(world / "data" / "train.jsonl"), "max_prompt_tokens": 320},
        "optimizer": {"lr": 1e-4, "schedule": "constant"},
        "algorithm": {},
        "checkpoint": {"every_steps": 1000},
        **sections,
    }


def rollout(prompts: int, group_size: int, max_num_seqs: int) -> dict[str, Any]:
    """The section of that name."""
    return {
        "group_size": group_size,
        "prompts_per_step": prompts,
        "max_new_tokens": MAX_NEW_TOKENS,
        "max_model_len": 384,
        "max_num_seqs": max_num_seqs,
        "kv_cache_gib": 0.25,
        "enforce_eager": True,
    }
