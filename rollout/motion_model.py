"""vLLM's twin of owlcap.models.macm: Qwen2.5-VL whose image items go through `visual.motion_merger`.

Registered by rollout.vllm_plugin in every process that starts vLLM. Weight names are the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VisionPatchMerger,
    Qwen2_5_VisionTransformer,
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.model_executor.models.utils import maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class MotionQwen2_5_VLForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL whose image items are overlays."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if not isinstance(self.visual, Qwen2_5_VisionTransformer):  # left out: no images and no videos are allowed
            return
        self.visual.motion_merger = Qwen2_5_VisionPatchMerger(
            d_model=self.visual.out_hidden_size,
            context_dim=self.visual.hidden_size,
            norm_layer=partial(RMSNorm, eps=getattr(self.config, "rms_norm_eps", 1e-6)),
            spatial_merge_size=self.visual.spatial_merge_size,
            quant_config=self.quant_config,
            prefix=maybe_prefix(prefix, "visual.motion_merger"),
        )

    def _process_image_input(self, image_input: Any) -> tuple[torch.Tensor, ...]:
        with self._through_motion_merger():
            return super()._process_image_input(image_input)

    @contextmanager
    def _through_motion_merger(self) -> Iterator[None]:
        """Let the vision tower end in the motion merger. One thread runs the model, so nothing else sees it."""
        merger, motion_merger = self.visual.merger, self.visual.motion_merger
        assert isinstance(motion_merger, Qwen2_5_VisionPatchMerger)
        self.visual.merger = motion_merger
        try:
            yield
        finally:
            self.visual.merger = merger

    def get_encoder_cudagraph_config(self) -> Any:
        """Recorded graphs hold the video's merger, so overlays run without."""
        config = super().get_encoder_cudagraph_config()
        return replace(config, modalities=[name for name in config.modalities if name != "image"])

    def get_mm_mapping(self) -> MultiModelKeys:
        """Names of the language model, the projectors and the tower."""
        return MultiModelKeys.from_string_field(
            language_model="language_model",
            connector=["visual.merger.", "visual.motion_merger."],
            tower_model="visual.",
        )
