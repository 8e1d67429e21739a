"""Three-dimensional rotary positions (mRoPE) of Qwen2.5-VL: the one function that learner, SFT and checks use.

The rule is the original model's, and vLLM's: text counts up in all three rows; a vision block starts where the text
stopped and counts time, height and width in merged patches, time in steps of `second_per_grid * tokens_per_second`,
truncated; text resumes at the block's largest position plus one. (transformers 5.x resumes at max(h, w) and truncates
the seconds first, so its `get_rope_index` describes another model than the one vLLM samples from.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from owlcap.errors import PromptError

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLConfig


def mrope_positions(
    token_ids: torch.Tensor,
    grids: Sequence[tuple[int, int, int]],
    second_per_grid_ts: Sequence[float],
    config: Qwen2_5_VLConfig,
) -> torch.Tensor:
    """Positions of a token sequence.

    Args:
        token_ids: LongTensor [S], placeholders expanded.
        grids: patches in time, height and width of each image and video, in the order of their placeholders.
        second_per_grid_ts: seconds between temporal patches, one a video, in order (images have none).
        config: the model's, for placeholder ids, merge size and tokens a second.

    Returns:
        LongTensor [3, S]: time, height and width positions.

    Raises:
        PromptError: placeholders and grids do not match.
    """
    import torch

    settings: Any = config.vision_config
    merge = settings.spatial_merge_size
    is_vision = (token_ids == config.image_token_id) | (token_ids == config.video_token_id)
    seconds = iter(second_per_grid_ts)
    blocks: list[torch.Tensor] = []
    done, resume = 0, 0  # tokens placed so far, and the next text position
    for t, h, w in grids:
        cells = (t, h // merge, w // merge)
        size = cells[0] * cells[1] * cells[2]
        start = done + _first_true(is_vision[done:])
        if start + size > len(token_ids) or not bool(is_vision[start : start + size].all()):
            raise _mismatch(int(is_vision.sum()), grids, merge)
        step = 1.0
        if token_ids[start] == config.video_token_id:
            second_per_grid = next(seconds, None)
            if second_per_grid is None:
                raise PromptError(f"there are more videos than second_per_grid_ts ({len(second_per_grid_ts)})")
            step = second_per_grid * settings.tokens_per_second
        text = _text(start - done, resume, token_ids.device)
        vision = _vision(cells, step, token_ids.device) + resume + (start - done)
        blocks += [text, vision]
        done, resume = start + size, int(vision.max()) + 1
    if bool(is_vision[done:].any()):
        raise _mismatch(int(is_vision.sum()), grids, merge)
    blocks.append(_text(len(token_ids) - done, resume, token_ids.device))
    return torch.cat(blocks, dim=1)


def _first_true(mask: torch.Tensor) -> int:
    """Index of the first True, or the length when there is none."""
    found = mask.nonzero()
    return int(found[0]) if len(found) else len(mask)


def _text(length: int, start: int, device: torch.device) -> torch.Tensor:
    import torch

    return torch.arange(start, start + length, device=device).expand(3, -1)


def _vision(cells: tuple[int, int, int], step: float, device: torch.device) -> torch.Tensor:
    """Positions [3, t*h*w] of one block from 0; time is truncated after the multiplication, in float64 as vLLM does."""
    import torch

    t, h, w = (torch.arange(n, device=device) for n in cells)
    if step != 1.0:
        t = (t.double() * step).long()
    return torch.stack(torch.meshgrid(t, h, w, indexing="ij")).reshape(3, -1)


def _mismatch(num_tokens: int, grids: Sequence[tuple[int, int, int]], merge: int) -> PromptError:
    expected = sum(t * h * w for t, h, w in grids) // merge**2
    return PromptError(
        f"the prompt has {num_tokens} vision tokens, its {len(grids)} images and videos take {expected}",
        cure="build prompts with owlcap.data.prompts, and ban vision tokens in sampling",
    )
