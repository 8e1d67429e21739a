"""What `model.attention` means: which attention a policy runs with on which device."""

from __future__ import annotations

from typing import Literal

Attention = Literal["sdpa", "flex", "flash_attention_2"]


def chosen_attention(setting: Literal["auto"] | Attention, on_gpu: bool) -> Attention:
    """The attention of a device: auto is FlexAttention on a GPU and SDPA on a CPU."""
    if setting != "auto":
        return setting
    return "flex" if on_gpu else "sdpa"


def described(setting: Literal["auto"] | Attention, on_gpu: bool) -> str:
    """What will run, for plans."""
    match chosen_attention(setting, on_gpu):
        case "flex":
            return "FlexAttention with a block mask"
        case "flash_attention_2":
            return "flash attention 2 in the vision tower, FlexAttention with a block mask"
        case "sdpa":
            return "SDPA attention with the whole mask" if on_gpu else "SDPA attention, prompts apart from captions"
