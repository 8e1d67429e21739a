"""Teaches a randomly initialised vision tower to see: training on the clips' known facts, with temporary heads.

This stands in for a pretrained encoder, which cannot be assumed on a fresh machine. It uses ground truth, so it is
part of making a base model and of nothing else; the heads are thrown away, the language model is not touched.

The tower attends within one temporal patch (two frames), never across, so a training example is a pair of
neighbouring frames. One linear head over every merged token predicts every fact of the clip, and the action in
progress: whatever token the language model attends to later, the facts can be read from it linearly.

Shapes: B pairs, K cells (merged tokens) of a pair, T frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from owlcap.errors import DataError
from owlcap.types import Sample

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

ACTION = "action"
PAIR = 2  # frames of a temporal patch
BATCH = 96  # pairs
LR, BETAS, WEIGHT_DECAY, LR_WARMUP_STEPS, MAX_GRAD_NORM = 4e-3, (0.9, 0.98), 0.05, 40, 1.0
ACTION_WEIGHT = 3.0  # in the loss: ten actions are harder than any detail
UNKNOWN = -1

Progress = Callable[[int, int], None]  # (steps done, steps in all)


@dataclass(frozen=True, slots=True)
class Labels:
    """Facts as class numbers. A detail of several words ("object=red ball left") is one question a word."""

    questions: tuple[str, ...]  # "shirt", "object 1", ..., ACTION last
    classes: tuple[tuple[str, ...], ...]  # answers of each question
    details: torch.Tensor  # long [clips, questions - 1]
    actions: torch.Tensor  # long [clips, T - 1]: the action that surely fills frames t and t + 1, or UNKNOWN


def make_labels(samples: Sequence[Sample], num_frames: int) -> Labels:
    """Read the facts of toy clips with `num_frames` frames.

    Raises:
        DataError: a sample has no facts, or not the same kinds as the others.
    """
    details = [_details(sample) for sample in samples]
    actions = [[f.text.split("=", 1)[1] for f in s.facts if f.text.startswith(f"{ACTION}=")] for s in samples]
    questions = tuple(details[0])
    for sample, detail, names in zip(samples, details, actions, strict=True):
        if tuple(detail) != questions or not names:
            raise DataError(
                f"the row's facts are about {', '.join(detail) or 'nothing'} and {len(names)} actions",
                where=sample.id,
                allowed=f"facts about {', '.join(questions)} and at least one action, in every row",
                cure="make the base model from a toy data set (owlcap data toy)",
            )
    classes = [tuple(sorted({detail[question] for detail in details})) for question in questions]
    classes.append(tuple(sorted({name for names in actions for name in names})))
    numbers = [[classes[i].index(detail[q]) for i, q in enumerate(questions)] for detail in details]
    steps = [
        [_action_number(names, classes[-1], t / num_frames, (t + PAIR) / num_frames) for t in range(num_frames - 1)]
        for names in actions
    ]
    return Labels((*questions, ACTION), tuple(classes), torch.tensor(numbers), torch.tensor(steps))


def _details(sample: Sample) -> dict[str, str]:
    found: dict[str, str] = {}
    for fact in sample.facts:
        kind, value = fact.text.split("=", 1)
        if fact.tag == "detail":
            words = value.split()
            found |= {kind if len(words) == 1 else f"{kind} {i}": word for i, word in enumerate(words, start=1)}
    return found


def _action_number(names: Sequence[str], classes: Sequence[str], start: float, end: float) -> int:
    """The action that fills the share start..end of the clip for sure (owlcap.data.toy.scene: three actions share a
    clip evenly, of two either may take up to two thirds)."""
    tolerance = 1e-6
    if len(names) == 2:
        index = 0 if end <= 1 / 3 + tolerance else 1 if start >= 2 / 3 - tolerance else UNKNOWN
    else:
        first = math.floor(start * len(names) + tolerance)
        index = first if end * len(names) <= first + 1 + tolerance else UNKNOWN
    return UNKNOWN if index == UNKNOWN else classes.index(names[index])


def mirror_tables(labels: Labels) -> list[torch.Tensor] | None:
    """For each question, the class of each class in the mirrored picture; None when a mirrored class is unknown."""
    tables: list[torch.Tensor] = []
    for classes in labels.classes:
        mirrored = [_swap_sides(name) for name in classes]
        if not set(mirrored) <= set(classes):
            return None
        tables.append(torch.tensor([classes.index(name) for name in mirrored]))
    return tables


def _swap_sides(name: str) -> str:
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")


class Patcher:
    """Frames to the vision tower's patches, as the processor does it, for many equal clips at once."""

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        settings = processor.video_processor
        self._mean = torch.tensor(settings.image_mean) / settings.rescale_factor
        self._std = torch.tensor(settings.image_std) / settings.rescale_factor
        self._patch, self._merge = settings.patch_size, settings.merge_size

    def __call__(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [B, PAIR, H, W, 3] to patches [B * h * w, D] and the grid [B, 3]."""
        size, _, height, width, _ = frames.shape
        h, w = height // self._patch, width // self._patch
        cells = (h // self._merge, self._merge, self._patch, w // self._merge, self._merge, self._patch)
        x = (frames.float() - self._mean) / self._std
        x = x.view(size, PAIR, *cells, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return x.reshape(size * h * w, -1), torch.tensor([[1, h, w]]).expand(size, -1)


class Warmup:
    """The tower, its temporary head, and the training of both on frame pairs held in memory."""

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, labels: Labels, seed: int
    ) -> None:
        self._tower, self._patches, self._labels = model.model.visual, Patcher(processor), labels
        self._sizes = [len(classes) for classes in labels.classes]
        self._random = torch.Generator().manual_seed(seed)
        self._head = nn.Linear(model.config.get_text_config().hidden_size, sum(self._sizes))
        with torch.no_grad():
            self._head.weight.normal_(std=0.05, generator=self._random)
            self._head.bias.zero_()

    def _answers(self, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits [B, K, classes] of each question for frame pairs [B, PAIR, H, W, 3]."""
        patches, grid = self._patches(frames)
        tokens = self._tower(patches, grid_thw=grid).pooler_output
        return self._head(tokens).view(len(frames), -1, sum(self._sizes)).split(self._sizes, dim=-1)

    def train(self, frames: torch.Tensor, clips: Sequence[int], num_steps: int, progress: Progress | None) -> None:
        """Train on the given clips of `frames` uint8 [clips, T, H, W, 3]."""
        parameters = [*self._tower.parameters(), *self._head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, num_steps))
        batches = self._batches(clips)
        mirror = mirror_tables(self._labels)
        for step in range(num_steps):
            clip, first = next(batches).unbind(1)
            pairs = frames[clip[:, None], first[:, None] + torch.arange(PAIR)]
            targets = torch.cat([self._labels.details[clip], self._labels.actions[clip, first][:, None]], dim=1)
            if mirror is not None:  # half of every batch: as many examples again, with left and right exchanged
                half = len(clip) // 2
                pairs = torch.cat([pairs[:half].flip(3), pairs[half:]])
                targets[:half] = torch.stack([t[targets[:half, q]] for q, t in enumerate(mirror)], dim=1)
            loss = self._loss(self._answers(pairs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, num_steps)

    def _batches(self, clips: Sequence[int]):
        """Endless shuffled (clip, first frame) pairs [BATCH, 2] whose action is known."""
        known = (self._labels.actions[list(clips)] != UNKNOWN).nonzero()
        pairs = torch.stack([torch.tensor(clips)[known[:, 0]], known[:, 1]], dim=1)
        while True:
            yield from pairs[torch.randperm(len(pairs), generator=self._random)].split(BATCH)

    def _loss(self, answers: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of every question at every token, summed over questions."""
        weights = [1.0] * (len(answers) - 1) + [ACTION_WEIGHT]
        losses = [
            weight * functional.cross_entropy(logits.flatten(0, 1), target.repeat_interleave(logits.shape[1]))
            for weight, logits, target in zip(weights, answers, targets.unbind(1), strict=True)
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def normalize(self, frames: torch.Tensor, clips: Sequence[int]) -> None:
        """Scale the tower's output to a root mean square of 1 over some clips, keeping what can be read from it.

        The warm-up leaves it four times larger, and what the language model adds to such states (when they were, in
        which order) drowns: after the same SFT, 32 % of action orders were told right, and 43 % at size 1.
        """
        patches, grid = self._patches(frames[list(clips)].flatten(0, 1).unflatten(0, (-1, PAIR)))
        scale = self._tower(patches, grid_thw=grid).pooler_output.square().mean().sqrt()
        output = self._tower.merger.mlp[-1]
        output.weight /= scale
        output.bias /= scale
        self._head.weight *= scale

    @torch.no_grad()
    def accuracies(self, frames: torch.Tensor, clips: Sequence[int]) -> dict[str, float]:
        """Share of right answers by question: details once a clip, actions once a temporal patch where known.

        Answers of a pair's tokens are averaged; those of details over the whole clip.
        """
        right: dict[str, list[torch.Tensor]] = {question: [] for question in self._labels.questions}
        for clip in clips:
            pairs = frames[clip].unflatten(0, (-1, PAIR))
            answers = [logits.mean(1) for logits in self._answers(pairs)]
            for question, logits, target in zip(right, answers[:-1], self._labels.details[clip], strict=False):
                right[question].append(logits.mean(0).argmax() == target)
            targets = self._labels.actions[clip, ::PAIR]
            right[ACTION] += (answers[-1].argmax(-1) == targets)[targets != UNKNOWN].unbind()
        return {question: float(torch.stack(found).float().mean()) for question, found in right.items()}


def _lr_factor(step: int, num_steps: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    return min((step + 1) / LR_WARMUP_STEPS, 1.0) * 0.5 * (1 + math.cos(math.pi * min(step / num_steps, 1.0)))
