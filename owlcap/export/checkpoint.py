"""A training checkpoint's weights, for runs that were stopped before they wrote their model folder.

DeepSpeed's own consolidation puts the shards of every ZeRO stage together; the base model that the run started from
gives the architecture, the processor and the tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ModelSection
from owlcap.errors import ExportError
from owlcap.inference.engine import Dtype
from owlcap.training.checkpoint import load_meta

if TYPE_CHECKING:
    from torch import Tensor

STATE_TAG = "engine"  # the checkpoint's folder of DeepSpeed files
PREFIX = "policy."  # what the engine's root module calls the policy


def consolidate(checkpoint: Path, base: str, dtype: Dtype, folder: Path) -> Path:
    """Write the checkpoint's policy as a Hugging Face folder.

    Args:
        checkpoint: a complete checkpoint of CheckpointStore.
        base: the run's `model.path`.
        dtype: of the weights written; fp32 keeps all that ZeRO kept.
        folder: where to; must not exist.

    Raises:
        ExportError: the checkpoint and the base model do not belong together.
        CheckpointError: not a complete checkpoint.
        ModelError: the base model is no longer there.
    """
    from owlcap.models.load import load_policy, load_processor, save_policy

    zero_stage = load_meta(checkpoint).layout.zero_stage
    model = load_policy(ModelSection(path=base, dtype=dtype, gradient_checkpointing=False))
    weights = _weights(checkpoint, zero_stage)
    tied = set(model.all_tied_weights_keys)  # read from the embeddings; no checkpoint has to repeat them
    missing = model.state_dict().keys() - weights.keys() - tied
    unknown = weights.keys() - model.state_dict().keys()
    if missing or unknown:
        raise ExportError(
            f"the checkpoint lacks {len(missing)} of the base model's weights and has {len(unknown)} others, "
            f"first {min(missing | unknown)}",
            where=f"{checkpoint}, base model {base}",
            cure="restore the model folder that the run started from",
        )
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    save_policy(model, load_processor(base), folder)
    return folder


def _weights(checkpoint: Path, zero_stage: int) -> dict[str, Tensor]:
    """Weights by the model's own names, in fp32 where ZeRO kept them so."""
    import torch
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    if zero_stage > 0:
        state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag=STATE_TAG)
    else:
        states = checkpoint / STATE_TAG / "mp_rank_00_model_states.pt"
        state = torch.load(states, map_location="cpu", weights_only=False)["module"]
    assert isinstance(state, dict)
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
