"""What vLLM loads of this project by itself, through the entry-point group `vllm.general_plugins`.

It runs in every process of vLLM: in the rollout actors, in `vllm serve` and its workers, and where vLLM inspects
models. So a motion checkpoint needs no flag; it needs this project installed beside vLLM.
"""

from __future__ import annotations

from owlcap.models.load import MOTION_ARCHITECTURE


def register() -> None:
    """Tell vLLM which class serves checkpoints with a motion merger. May be called again."""
    from vllm import ModelRegistry

    if MOTION_ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(MOTION_ARCHITECTURE, f"rollout.motion_model:{MOTION_ARCHITECTURE}")
