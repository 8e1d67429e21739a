"""Decoding with transformers: several rows of different length at a time, alone or in pairs, with one KV cache.

    rows        [v0, m0, v1, m1, ...], left-padded; v sees the video, m overlays and video
    each step   logits of all rows -> processors -> the same scores in both rows of a pair -> the same token in both

Positions are owlcap.models.positions' (not those of transformers' `generate`, which place text after a video otherwise
than the policy was trained), and vision features are computed once for both rows of a pair. Letters of shapes: R rows,
S tokens of the longest prompt, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, LogitsProcessor

from motion.decoding import Synergy, pair_scores
from owlcap.config_motion import DecodingSection
from owlcap.models.logprobs import vision_features
from owlcap.models.positions import mrope_positions
from owlcap.types import Prompt

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (tokens [R, S], scores [R, V]) -> scores


@dataclass(frozen=True, slots=True)
class PairPrompt:
    """One clip as both branches see it; the video's inputs are the same."""

    visual: Prompt
    motion: Prompt


class BanTokens(LogitsProcessor):
    """Tokens that are never drawn."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = list(token_ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [R, V] with -inf for them."""
        scores[:, self._token_ids] = float("-inf")
        return scores


class SynergyProcessor(LogitsProcessor):
    """MSD for rows [v0, m0, v1, m1, ...]: the same scores in both rows of a pair. Must be the last processor.

    The next token is the largest score, in sampling too (the noise is in the scores), so that both rows draw the same.
    One processor serves one call of `decode`, or of transformers' greedy `generate`.

    Args:
        temperature: 0 is greedy.
        seeds: of the pairs' draws; needed to draw.
        observe: called at every step with the scored pairs and the chosen tokens [pairs].
    """

    def __init__(
        self,
        settings: DecodingSection,
        *,
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
        observe: Callable[[Synergy, torch.Tensor], None] | None = None,
    ) -> None:
        self._settings, self._temperature, self._seeds = settings, temperature, tuple(seeds)
        self._observe, self._step = observe, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [R, V], equal in the rows of a pair."""
        assert len(scores) % 2 == 0, "rows must be whole pairs"
        scored, chosen = pair_scores(
            scores[0::2],
            scores[1::2],
            self._settings,
            temperature=self._temperature,
            seeds=self._seeds,
            steps=(self._step,) * len(self._seeds),
        )
        self._step += 1
        if self._observe:
            self._observe(scored, chosen.argmax(-1))
        return chosen.repeat_interleave(2, dim=0)


@torch.inference_mode()
def decode(
    model: Qwen2_5_VLForConditionalGeneration,
    prompts: Sequence[Prompt],
    features: Sequence[torch.Tensor],
    processors: Sequence[Processor],
    max_new_tokens: Sequence[int],
    end_ids: Sequence[int],
) -> list[list[int]]:
    """Continue every row by its largest score, until an end token (which is kept) or its length limit.

    Args:
        features: of each prompt's vision tokens, [tokens, hidden] each.
        processors: applied to the logits (fp32 [R, V]) in order.
        max_new_tokens: of each row.
    """
    device = model.model.language_model.embed_tokens.weight.device
    embeddings, positions, mask = _left_padded(model, prompts, features)
    cache, last = DynamicCache(config=model.config.get_text_config()), positions.amax((0, 2))
    ends = torch.tensor(list(end_ids), device=device)
    limits = torch.tensor(list(max_new_tokens), device=device)
    tokens = torch.zeros(len(prompts), 0, dtype=torch.long, device=device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    running = torch.ones(len(prompts), dtype=torch.bool, device=device)
    while bool(running.any()):
        hidden = model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        scores = model.lm_head(hidden).float()
        for processor in processors:
            scores = processor(tokens, scores)
        drawn = scores.argmax(-1)
        tokens = torch.cat([tokens, drawn[:, None]], dim=1)
        lengths += running
        running &= ~torch.isin(drawn, ends) & (lengths < limits)
        embeddings = model.model.language_model.embed_tokens(drawn[:, None])
        positions = (last + tokens.shape[1]).expand(3, -1)[..., None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]


def decode_pairs(
    model: Qwen2_5_VLForConditionalGeneration,
    pairs: Sequence[PairPrompt],
    synergy: SynergyProcessor,
    max_new_tokens: Sequence[int],
    *,
    banned_ids: Sequence[int] = (),
) -> list[list[int]]:
    """The tokens of each pair, several clips in one batch.

    Args:
        max_new_tokens: of each pair.
        banned_ids: never drawn.
    """
    motion = vision_features(model, [pair.motion.vision for pair in pairs])  # [overlays | video] of each
    prompts = [prompt for pair in pairs for prompt in (pair.visual, pair.motion)]
    features: list[torch.Tensor] = []
    for pair, both in zip(pairs, motion, strict=True):
        features += [both[-num_vision_tokens(pair.visual, model) :], both]
    limits = [limit for limit in max_new_tokens for _ in range(2)]
    rows = decode(model, prompts, features, [BanTokens(banned_ids), synergy], limits, end_token_ids(model))
    assert rows[0::2] == rows[1::2], "the rows of a pair differ"
    return rows[0::2]


def num_vision_tokens(prompt: Prompt, model: Qwen2_5_VLForConditionalGeneration) -> int:
    """Tokens that a prompt's overlays and video take."""
    return sum(t * h * w for t, h, w in prompt.vision.grids) // model.model.visual.spatial_merge_size**2


def end_token_ids(model: Qwen2_5_VLForConditionalGeneration) -> tuple[int, ...]:
    """What ends a turn, as the checkpoint's generation settings say; vLLM stops there too."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    ids = model.config.get_text_config().eos_token_id if ids is None else ids
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _left_padded(
    model: Qwen2_5_VLForConditionalGeneration, prompts: Sequence[Prompt], features: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings [R, S, hidden] with the vision features in their places, positions [3, R, S] and mask [R, S]."""
    config, embed = model.config, model.model.language_model.embed_tokens
    device: Any = embed.weight.device
    size = max(len(prompt.token_ids) for prompt in prompts)
    mask = torch.zeros(len(prompts), size, dtype=torch.long, device=device)
    positions = torch.zeros(3, len(prompts), size, dtype=torch.long, device=device)
    embeddings = torch.zeros(len(prompts), size, embed.weight.shape[1], dtype=embed.weight.dtype, device=device)
    for row, (prompt, vision) in enumerate(zip(prompts, features, strict=True)):
        ids = torch.tensor(prompt.token_ids, device=device)
        start = size - len(ids)
        mask[row, start:] = 1
        positions[:, row, start:] = mrope_positions(
            ids, prompt.vision.grids, [prompt.vision.second_per_grid_ts], config
        )
        is_vision = (ids == config.video_token_id) | (ids == config.image_token_id)
        one = embed(ids)
        one[is_vision] = vision.to(one)
        embeddings[row, start:] = one
    return embeddings, positions, mask
