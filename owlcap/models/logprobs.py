"""Logprobs of completions under the policy: the forward pass of the learner, of reference policies and of checks.

There is one path through the model, whatever the input: vision features are computed once a group (or handed in),
merged into the embeddings, and the language model runs with our own positions and masks. transformers' own position
code is never reached. Modules are called, never their weights, so ZeRO-3 can gather parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch.utils.checkpoint import checkpoint

from owlcap.models import flex_attention, prefix_attention
from owlcap.models.packing import PackedBatch
from owlcap.types import VisionInputs

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import Qwen2_5_VLForConditionalGeneration

CHUNK_ELEMENTS = 32 * 2**20  # logits that exist at once: 128 MiB in fp32


def vision_features(
    model: Qwen2_5_VLForConditionalGeneration, visions: Sequence[VisionInputs]
) -> tuple[torch.Tensor, ...]:
    """Features of several prompts in the order of their tokens: [vision tokens, hidden] each.

    One run of the vision tower takes all videos, a second one all overlays (they go through another merger).
    """
    visual = model.model.visual
    device = model.model.language_model.embed_tokens.weight.device
    pixels = torch.cat([torch.from_numpy(vision.pixel_values_videos) for vision in visions])
    grids = torch.tensor([vision.video_grid_thw for vision in visions], device=device)
    merged = visual(pixels.to(device, visual.dtype), grid_thw=grids).pooler_output
    merge = visual.spatial_merge_size**2
    videos = merged.split([t * h * w // merge for t, h, w in (vision.video_grid_thw for vision in visions)])
    if not hasattr(visual, "motion_merger"):
        return videos
    from owlcap.models.macm import overlay_features

    pairs = zip(overlay_features(visual, visions), videos, strict=True)
    return tuple(torch.cat([overlays.to(video), video]) for overlays, video in pairs)


@overload
def completion_logprobs(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: PackedBatch,
    *,
    temperature: float = ...,
    with_entropy: Literal[False] = ...,
    features: Sequence[torch.Tensor] | None = ...,
) -> torch.Tensor: ...
@overload
def completion_logprobs(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: PackedBatch,
    *,
    temperature: float = ...,
    with_entropy: Literal[True],
    features: Sequence[torch.Tensor] | None = ...,
) -> tuple[torch.Tensor, torch.Tensor]: ...
def completion_logprobs(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: PackedBatch,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    features: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Logprob of every completion token, differentiable.

    Args:
        batch: packed or padded rows on the model's device.
        temperature: the logits are divided by it.
        with_entropy: also return the entropy (nats) of each token's distribution, without a gradient.
        features: of `batch.visions`, when they are known (a frozen vision tower); else they are computed.

    Returns:
        fp32 [N] in the batch's order (`batch.split` cuts it into completions); with_entropy: two of them.
    """
    states = _completion_states(model, batch, features)
    size = max(1, CHUNK_ELEMENTS // model.config.get_text_config().vocab_size)
    chunks = list(zip(states.split(size), batch.targets.split(size), strict=True))
    arguments = (temperature, with_entropy)
    if len(chunks) == 1 or not torch.is_grad_enabled():
        parts = [_chunk(model.lm_head, *chunk, *arguments) for chunk in chunks]
    else:  # logits are computed again in the backward pass, a chunk at a time
        parts = [checkpoint(_chunk, model.lm_head, *chunk, *arguments, use_reentrant=False) for chunk in chunks]
    logprobs = torch.cat([part[0] for part in parts])  # type: ignore[index]
    return (logprobs, torch.cat([part[1] for part in parts])) if with_entropy else logprobs  # type: ignore[index]


def _completion_states(
    model: Qwen2_5_VLForConditionalGeneration, batch: PackedBatch, features: Sequence[torch.Tensor] | None
) -> torch.Tensor:
    """Last hidden states [N, hidden] from which the completion tokens are predicted."""
    embeddings = model.model.language_model.embed_tokens(batch.input_ids)
    if len(batch.feature_index):
        merged = torch.cat(list(vision_features(model, batch.visions) if features is None else features))
        merged = merged.to(embeddings.device, embeddings.dtype)[batch.feature_source]
        embeddings = embeddings.flatten(0, 1).index_copy(0, batch.feature_index, merged).view_as(embeddings)
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=batch.position_ids,
        attention_mask={"full_attention": _mask(model, batch)},
        use_cache=False,
    ).last_hidden_state
    return hidden.flatten(0, 1)[batch.predict_index]


def _mask(
    model: Qwen2_5_VLForConditionalGeneration, batch: PackedBatch
) -> torch.Tensor | prefix_attention.PrefixLayout | BlockMask | None:
    """The mask as the language model's attention takes it: a layout or blocks for ours, else the whole square.

    None is SDPA's own causal kernel, the fastest, and all that rows of one completion need.
    """
    attention = model.model.language_model.config._attn_implementation
    if batch.is_causal:
        return None
    if attention == prefix_attention.NAME:
        return prefix_attention.PrefixLayout.of(batch)
    if attention == flex_attention.NAME:
        return flex_attention.block_mask(batch)
    assert attention == "sdpa", f"{attention} takes no arbitrary mask"
    return batch.attention_mask()


def _chunk(
    head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor, temperature: float, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return _TokenLogprobs.apply(head(states), targets, temperature, with_entropy)  # type: ignore[return-value]


class _TokenLogprobs(torch.autograd.Function):
    """Logprobs [n] of targets [n] from logits [n, vocabulary], and entropies [n] without a gradient.

    Written out because a vocabulary is large: autograd's own way reads and writes the logits about twice as often, and
    keeps fp32 copies of them. Here the logits are kept as they came, and the gradient is softmax less one hot.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, temperature: float, with_entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
        largest = scaled.amax(-1)
        weights = (scaled - largest[:, None]).exp_()
        total = weights.sum(-1)
        normalizer = total.log() + largest
        logprobs = scaled.gather(-1, targets[:, None])[:, 0] - normalizer
        entropy = None
        if with_entropy:
            entropy = normalizer - torch.linalg.vecdot(weights, scaled) / total
            ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(logits, targets, normalizer)
        ctx.temperature = temperature
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor | None) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[override]
        logits, targets, normalizer = ctx.saved_tensors
        scaled = logits.float() if ctx.temperature == 1.0 else logits.float() / ctx.temperature
        grad = (grad / ctx.temperature)[:, None]
        found = (scaled - normalizer[:, None]).exp_().mul_(-grad)
        return found.scatter_add_(-1, targets[:, None], grad).to(logits.dtype), None, None, None
