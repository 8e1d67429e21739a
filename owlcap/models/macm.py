"""Motion-augmented Qwen2.5-VL (M-ACM): a second projector for key frames with a body mesh drawn in.

    video    ─> vision blocks ─> visual.merger        ─┐
                  (the same)                           ├─> language model
    overlays ─> vision blocks ─> visual.motion_merger ─┘

Overlays travel as image items, so image items of such a checkpoint mean overlays. The checkpoint is a Qwen2.5-VL
one in every other way: `model_type` stays qwen2_5_vl, `architectures` names the class below (vLLM's twin:
rollout.motion_model), and the file holds `visual.motion_merger.*` besides the usual weights.

Source: M-ACM section 3.2 (two encoders, a two-layer projector each); one tower for both is this project's.
Importing this module registers the class with transformers' Auto classes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2_5_VLPreTrainedModel,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger
from transformers.vision_utils import get_vision_window_index

from owlcap.errors import ModelError
from owlcap.models.load import (
    MOTION_ARCHITECTURE,
    check_complete,
    check_folder,
    has_motion,
    load_processor,
    model_folder,
    quiet_transformers,
    save_policy,
)
from owlcap.types import OverlayInputs, VisionInputs

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutputWithPooling
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel


class MotionQwen2_5_VLModel(Qwen2_5_VLModel):
    """The model without its head; `visual` has a `motion_merger` beside its `merger`."""

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        super().__init__(config)
        vision = self.visual.config
        self.visual.motion_merger = Qwen2_5_VLPatchMerger(
            dim=vision.out_hidden_size, context_dim=vision.hidden_size, spatial_merge_size=vision.spatial_merge_size
        )
        self.post_init()

    def get_image_features(  # type: ignore[override]
        self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **kwargs: object
    ) -> BaseModelOutputWithPooling:
        """Features of overlays, one tensor a picture as `pooler_output`."""
        output, features = _through_motion_merger(self.visual, pixel_values, image_grid_thw)
        sizes = (image_grid_thw.prod(-1) // self.visual.spatial_merge_size**2).tolist()
        output.pooler_output = features.split(sizes)  # type: ignore[assignment]
        return output


class MotionQwen2_5_VLForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL whose image items are overlays."""

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        Qwen2_5_VLPreTrainedModel.__init__(self, config)  # the parent's would build a model without the merger
        self.model = MotionQwen2_5_VLModel(config)
        text = config.get_text_config()
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()


assert MotionQwen2_5_VLForConditionalGeneration.__name__ == MOTION_ARCHITECTURE
register_checkpoint_conversion_mapping(  # weights have the same names on disk as in a plain checkpoint
    MOTION_ARCHITECTURE,
    get_checkpoint_conversion_mapping("Qwen2_5_VLForConditionalGeneration") or [],
    overwrite=True,
)
AutoModelForImageTextToText.register(  # of several classes for a config, `architectures` of the checkpoint chooses
    Qwen2_5_VLConfig,
    (Qwen2_5_VLForConditionalGeneration, MotionQwen2_5_VLForConditionalGeneration),  # type: ignore[arg-type]
    exist_ok=True,
)


def overlay_features(
    visual: Qwen2_5_VisionTransformerPretrainedModel, visions: Sequence[VisionInputs]
) -> tuple[torch.Tensor, ...]:
    """Features of each prompt's overlays [tokens, hidden], from one run of the tower; none of a prompt without.

    Where no prompt has overlays, a blank picture runs in their place and is then left out: ranks must call the same
    modules and reduce the same gradients, whatever is in their batches.
    """
    projection, merge = visual.patch_embed.proj, visual.spatial_merge_size
    device = projection.weight.device
    given = [vision.overlays for vision in visions if vision.overlays is not None]
    size = projection.in_channels * math.prod(projection.kernel_size)
    pictures = given or [OverlayInputs(np.zeros((merge**2, size), np.float32), ((1, merge, merge),))]
    pixels = torch.cat([torch.from_numpy(one.pixel_values) for one in pictures]).to(device)
    grids = torch.tensor([grid for one in pictures for grid in one.grids_thw], device=device)
    features = motion_features(visual, pixels, grids)
    features = features if given else features[:0]
    return features.split([sum(t * h * w for t, h, w in vision.grids[:-1]) // merge**2 for vision in visions])


def motion_features(
    visual: Qwen2_5_VisionTransformerPretrainedModel, pixels: torch.Tensor, grids: torch.Tensor
) -> torch.Tensor:
    """Features of overlay pictures [patches / merge^2, hidden], one picture after another.

    Args:
        pixels: [patches, values of a patch].
        grids: long [pictures, 3]: patches in time (1), height and width.
    """
    return _through_motion_merger(visual, pixels, grids)[1]


def _through_motion_merger(
    visual: Qwen2_5_VisionTransformerPretrainedModel, pixels: torch.Tensor, grids: torch.Tensor
) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
    output = visual(pixels.to(visual.dtype), grid_thw=grids)
    assert isinstance(visual.motion_merger, nn.Module)
    merged = visual.motion_merger(output.last_hidden_state)  # in the order of the tower's windows
    window_index, _ = get_vision_window_index(
        grids,
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return output, merged[torch.argsort(window_index)]


def add_motion(checkpoint: str | Path, out: str | Path) -> Path:
    """Write a plain Qwen2.5-VL checkpoint again with a motion merger, which starts as a copy of its merger.

    Weights keep their precision. Overlays then look to the policy as video frames do, until training tells them apart.

    Args:
        checkpoint: a Hugging Face folder, or a name on the Hub.
        out: the folder to write; it must not exist.

    Raises:
        ModelError: no plain Qwen2.5-VL checkpoint, or `out` exists.
        CheckpointError: the disk cannot be written.
    """
    folder, out = model_folder(checkpoint), Path(out)
    check_folder(folder)
    if has_motion(folder):
        raise ModelError("the checkpoint has a motion merger already", where=str(folder), cure="use it as it is")
    if out.exists():
        raise ModelError("the folder to write exists already", where=str(out), cure="choose another, or remove it")
    with quiet_transformers(), _no_load_report():
        model, info = MotionQwen2_5_VLForConditionalGeneration.from_pretrained(  # type: ignore[misc]
            folder, dtype="auto", output_loading_info=True
        )
    check_complete(folder, [name for name in info["missing_keys"] if ".motion_merger." not in name])
    visual = model.model.visual
    visual.motion_merger.load_state_dict(visual.merger.state_dict())
    save_policy(model, load_processor(folder), out)
    for path in folder.glob("*.json"):  # what is not transformers' own, such as how its videos are sampled
        if not (out / path.name).exists() and not path.name.endswith(".index.json"):
            shutil.copy(path, out)
    return out


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Silence transformers' table of missing weights, where that they are missing is the point."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
