"""The tiny base model of the demo and the tests: a random Qwen2.5-VL whose vision tower has learnt to see toy clips.

A real run starts from pretrained weights; a fresh machine has none. What they would bring is replaced by one
disclosed step: the tower is trained on the ground-truth facts of the toy training clips (owlcap.models.warmup),
for a minute. The language model stays random: it learns all it writes from SFT and RL.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ModelSection, VideoSection
from owlcap.errors import CheckpointError, DataError, ModelError
from owlcap.types import Sample

if TYPE_CHECKING:
    import torch

    from owlcap.models.warmup import Progress

VERSION = 3  # raised when the same inputs give another model
RECORD = "base.json"  # in the folder; its presence means complete
NUM_STEPS = 600
HELD_OUT_SHARE, MAX_HELD_OUT = 0.05, 200  # clips kept from training to measure with
NUM_NORMALIZED = 64  # clips from which the size of the features is taken
DECODERS = 2


@dataclass(frozen=True, slots=True)
class BaseReport:
    """How well the vision tower sees clips it was not trained on, and what it took."""

    accuracies: dict[str, float]  # by question: "shirt", "object 1", ..., "action"
    num_held_out: int  # clips
    num_parameters: int
    num_steps: int
    seconds: float

    def text(self) -> str:
        """One paragraph for people."""
        accuracies = ", ".join(f"{question} {value:.2f}" for question, value in self.accuracies.items())
        return (
            f"tiny base model: {self.num_parameters / 1e6:.1f}M random parameters; its vision tower was trained on "
            f"ground-truth facts for {self.num_steps} steps (in place of a pretrained encoder), {self.seconds:.0f} s\n"
            f"facts readable from single visual tokens, {self.num_held_out} held-out clips: {accuracies}"
        )


def make_base(
    folder: str | Path,
    samples: Sequence[Sample],
    video: VideoSection,
    seed: int,
    *,
    num_steps: int = NUM_STEPS,
    progress: Progress | None = None,
) -> BaseReport:
    """Make the base model in `folder`, or return at once when it is there, made from the same inputs.

    Args:
        folder: becomes a plain Hugging Face folder; whole or absent.
        samples: toy training rows with facts; the tokenizer is trained on their prompts and captions.
        video: how clips are sampled; all must come out equally long and large.
        seed: of weights, batches and held-out clips.
        num_steps: of the vision warm-up; 600 take about half a minute on two cores, 350 the half.
        progress: called with (steps done, steps in all).

    Raises:
        DataError: rows without facts, or clips that cannot be read or differ in size.
        ModelError: `folder` holds something else.
        CheckpointError: the disk cannot be written.
    """
    from owlcap.models.load import replace_folder

    folder = Path(folder).absolute()
    fingerprint = _fingerprint(samples, video, seed, num_steps)
    if folder.exists():
        return _existing(folder, fingerprint)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        report = _build(temporary, samples, video, seed, num_steps, progress)
        record = {"fingerprint": fingerprint, "report": asdict(report)}
        (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        replace_folder(temporary, folder)
    except OSError as error:
        raise CheckpointError(
            f"the base model cannot be written: {error}",
            where=str(folder),
            cure="free some space or choose another folder",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return report


def _build(
    folder: Path, samples: Sequence[Sample], video: VideoSection, seed: int, num_steps: int, progress: Progress | None
) -> BaseReport:
    from owlcap.models.load import load_policy, load_processor, quiet_transformers
    from owlcap.models.tiny import make_tiny_model
    from owlcap.models.warmup import Warmup, make_labels

    started = time.perf_counter()
    frames = load_frames(samples, video)
    labels = make_labels(samples, frames.shape[1])
    texts = [text for sample in samples for text in (sample.prompt, sample.caption, sample.reference)]
    with quiet_transformers():
        make_tiny_model(folder, texts, seed)
    processor = load_processor(folder, video)
    section = ModelSection(path=str(folder), dtype="fp32", freeze_vision=False, gradient_checkpointing=False)
    model = load_policy(section)
    num_held_out = min(MAX_HELD_OUT, max(1, int(len(samples) * HELD_OUT_SHARE)))
    trained, held_out = range(len(samples) - num_held_out), range(len(samples) - num_held_out, len(samples))
    warmup = Warmup(model, processor, labels, seed)
    warmup.train(frames, trained, num_steps, progress)
    warmup.normalize(frames, trained[:NUM_NORMALIZED])
    accuracies = warmup.accuracies(frames, held_out)
    with quiet_transformers():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    num_parameters = sum(p.numel() for p in model.parameters())
    return BaseReport(accuracies, num_held_out, num_parameters, num_steps, time.perf_counter() - started)


def load_frames(samples: Sequence[Sample], video: VideoSection) -> torch.Tensor:
    """All clips in memory: uint8 [clips, T, H, W, 3].

    Raises:
        DataError: clips of different sizes, fewer than two, or one that cannot be read.
    """
    import numpy as np
    import torch

    from owlcap.data.video import VideoLoader

    if len(samples) < 2:
        raise DataError(f"a base model cannot be made from {len(samples)} clips", allowed="2 or more", cure="make more")
    num_decoders = min(DECODERS, os.cpu_count() or 1)
    pool = video.model_copy(update={"num_workers": num_decoders})
    with VideoLoader(pool) as loader, ThreadPoolExecutor(num_decoders) as threads:
        clips = list(threads.map(lambda sample: loader.load(sample).frames, samples))
    for sample, clip in zip(samples, clips, strict=True):
        if clip.shape != clips[0].shape:
            raise DataError(
                f"the clip gives {clip.shape[0]} frames of {clip.shape[2]}x{clip.shape[1]}",
                where=sample.id,
                allowed=f"{clips[0].shape[0]} frames of {clips[0].shape[2]}x{clips[0].shape[1]}, as the first clip",
                cure="make the base model from a toy data set (owlcap data toy)",
            )
    return torch.from_numpy(np.stack(clips))


def _fingerprint(samples: Sequence[Sample], video: VideoSection, seed: int, num_steps: int) -> str:
    """Name of everything the model depends on; a data set that was moved stays the same."""
    settings = video.model_dump(exclude={"deadline_s", "num_workers", "backend"})
    digest = hashlib.blake2b(json.dumps([VERSION, seed, num_steps, settings], sort_keys=True).encode(), digest_size=16)
    for sample in samples:
        facts = [fact.text for fact in sample.facts]
        size = os.path.getsize(sample.video) if os.path.exists(sample.video) else 0
        digest.update(json.dumps([sample.id, sample.prompt, sample.caption, sample.reference, facts, size]).encode())
    return digest.hexdigest()


def _existing(folder: Path, fingerprint: str) -> BaseReport:
    cure = "delete the folder or choose another one"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        report = BaseReport(**record["report"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("the folder exists and is not a tiny base model", where=str(folder), cure=cure) from error
    if record["fingerprint"] != fingerprint:
        raise ModelError(
            "the folder holds a base model made from other clips or settings",
            where=str(folder),
            allowed="an absent folder, or one made from the same inputs",
            cure=cure,
        )
    return report
