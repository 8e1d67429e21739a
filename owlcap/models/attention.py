"""What `model.attention` means: which attention a policy runs with on which device."""

from __future__ import annotations

from typing import Literal

Attention = Literal["sdpa", "flex", "flash_attention_2"]
DESCRIBED: dict[Attention, str] = {
    "sdpa": "SDPA attention in two calls",
    "flex": "FlexAttention with a block mask",
    "flash_attention_2": "flash attention 2 in the vision tower, SDPA in two calls",
}


def chosen_attention(setting: Literal["auto"] | Attention, on_gpu: bool) -> Attention:
    """The attention of a device: auto is FlexAttention on a GPU and SDPA on a CPU."""
    if setting != "auto":
        return setting
    return "flex" if on_gpu else "sdpa"
