"""Shared-prefix packing: a prompt and all of its completions as one sequence, so the prompt runs once a group.

    packed row   [ prompt with video | completion 1 | completion 2 | ... | completion G ]
    padded rows  [ prompt with video | completion 1 ]  [ prompt with video | completion 2 ]  ...

In a packed row a completion's token sees the prompt and its own completion up to itself, and each completion's
positions start where the prompt's end: the model computes exactly what it computes on the padded rows, at
(P + G*C) instead of G * (P + C) tokens. Several groups make a batch of several rows, padded on the right.

Shapes: R rows, S tokens of the longest row, N completion tokens of the batch, M vision tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from owlcap.models.positions import mrope_positions
from owlcap.types import Prompt, VisionInputs

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig

PROMPT, PADDING = 0, -1  # segments; completion c of a row is segment c + 1


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of token sequences with their masks, and where the completions' tokens are predicted.

    Completion tokens are numbered group by group, completion by completion, token by token; `lengths` cuts them.
    """

    input_ids: torch.Tensor  # long [R, S]
    position_ids: torch.Tensor  # long [3, R, S]
    segments: torch.Tensor  # long [R, S]: PROMPT, completion number + 1, or PADDING
    predict_index: torch.Tensor  # long [N]: flat index into R*S of the state that predicts each completion token
    targets: torch.Tensor  # long [N]: the completion tokens
    feature_index: torch.Tensor  # long [M]: flat index into R*S of each vision token
    feature_source: torch.Tensor  # long [M]: its row among the batch's vision features, one group after another
    lengths: tuple[int, ...]  # tokens of each completion
    visions: tuple[VisionInputs, ...]  # one a group

    @property
    def num_tokens(self) -> int:
        """Tokens that the language model runs over, padding included."""
        return self.input_ids.numel()

    def to(self, device: str | torch.device) -> PackedBatch:
        """The batch with its tensors on `device` (vision inputs stay arrays until the vision tower takes them)."""
        names = ("input_ids", "position_ids", "segments", "predict_index", "targets", "feature_index", "feature_source")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    @property
    def is_causal(self) -> bool:
        """Whether no row holds two completions: a plain causal mask is then right, as padding comes last."""
        return int(self.segments.max()) <= 1

    def attention_mask(self) -> torch.Tensor:
        """Boolean [R, 1, S, S], true where the query (third axis) may see the key (fourth)."""
        size = self.input_ids.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool, device=self.input_ids.device).tril()
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        return (causal & ((key == PROMPT) | (key == query)))[:, None]

    def split(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cut values [N] of completion tokens into one tensor a completion."""
        return values.split(self.lengths)


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence before padding: a prompt with its positions, and the completions that follow it."""

    prompt_ids: torch.Tensor  # long [P]
    prompt_positions: torch.Tensor  # long [3, P]
    completions: tuple[tuple[int, ...], ...]
    is_vision: torch.Tensor  # bool [P]
    first_feature: int  # row of this prompt's first vision token among the batch's features


def pack_group(prompt: Prompt, completions: Sequence[Sequence[int]], config: Qwen2_5_VLConfig) -> PackedBatch:
    """One prompt and its completions as one row (R = 1)."""
    return pack_groups([(prompt, completions)], config)


def pack_groups(groups: Sequence[tuple[Prompt, Sequence[Sequence[int]]]], config: Qwen2_5_VLConfig) -> PackedBatch:
    """Several groups, each as one shared-prefix row.

    Rows rather than one long row: prompts stay aligned, so that attention takes them together (prefix_attention.py).

    Raises:
        PromptError: a prompt's vision tokens do not fit its grid.
    """
    return collate(_rows(groups, config), [prompt.vision for prompt, _ in groups])


def pad_groups(groups: Sequence[tuple[Prompt, Sequence[Sequence[int]]]], config: Qwen2_5_VLConfig) -> PackedBatch:
    """The plain batch: one row a completion, the prompt repeated. Same completion order as `pack_groups`."""
    rows = [replace(row, completions=(completion,)) for row in _rows(groups, config) for completion in row.completions]
    return collate(rows, [prompt.vision for prompt, _ in groups])


def pad_group(prompt: Prompt, completions: Sequence[Sequence[int]], config: Qwen2_5_VLConfig) -> PackedBatch:
    """The plain batch of one group (R = G)."""
    return pad_groups([(prompt, completions)], config)


def _rows(groups: Sequence[tuple[Prompt, Sequence[Sequence[int]]]], config: Qwen2_5_VLConfig) -> list[Row]:
    rows: list[Row] = []
    first_feature = 0
    for prompt, completions in groups:
        ids = torch.tensor(prompt.token_ids)
        vision = prompt.vision
        positions = mrope_positions(ids, vision.grids, [vision.second_per_grid_ts], config)
        is_vision = (ids == config.video_token_id) | (ids == config.image_token_id)
        rows.append(Row(ids, positions, tuple(tuple(c) for c in completions), is_vision, first_feature))
        first_feature += int(is_vision.sum())
    return rows


def collate(rows: Sequence[Row], visions: Sequence[VisionInputs]) -> PackedBatch:
    """Lay rows out, padded on the right to the longest."""
    num_tokens = [len(row.prompt_ids) + sum(map(len, row.completions)) for row in rows]
    size = max(num_tokens)
    input_ids = torch.zeros(len(rows), size, dtype=torch.long)
    position_ids = torch.zeros(3, len(rows), size, dtype=torch.long)
    segments = torch.full((len(rows), size), PADDING)
    predict: list[torch.Tensor] = []
    feature_index: list[torch.Tensor] = []
    feature_source: list[torch.Tensor] = []
    for r, row in enumerate(rows):
        end = len(row.prompt_ids)
        input_ids[r, :end], position_ids[:, r, :end], segments[r, :end] = row.prompt_ids, row.prompt_positions, PROMPT
        resume = int(row.prompt_positions.max()) + 1
        places = row.is_vision.nonzero()[:, 0]
        feature_index.append(places + r * size)
        feature_source.append(torch.arange(len(places)) + row.first_feature)
        last_of_prompt = r * size + end - 1
        for c, completion in enumerate(row.completions):
            start, end = end, end + len(completion)
            input_ids[r, start:end] = torch.tensor(completion)
            position_ids[:, r, start:end] = torch.arange(resume, resume + len(completion))
            segments[r, start:end] = c + 1
            flat = torch.arange(r * size + start - 1, r * size + end - 1)
            flat[:1] = last_of_prompt  # the state before a completion's first token is the prompt's last
            predict.append(flat)
    completions = [completion for row in rows for completion in row.completions]
    return PackedBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        segments=segments,
        predict_index=torch.cat(predict),
        targets=torch.tensor([token for completion in completions for token in completion]),
        feature_index=torch.cat(feature_index),
        feature_source=torch.cat(feature_source),
        lengths=tuple(map(len, completions)),
        visions=tuple(visions),
    )
