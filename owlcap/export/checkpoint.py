"""A training checkpoint's weights, for runs that were stopped before they wrote their model folder.

DeepSpeed's own consolidation puts the shards of every ZeRO stage together; the base model that the run started from
gives the architecture, the processor and the tokenizer.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ModelSection
from owlcap.errors import ExportError
from owlcap.inference.engine import Dtype
from owlcap.training.checkpoint import Layout, load_meta

if TYPE_CHECKING:
    from torch import Tensor, nn

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

    layout = load_meta(checkpoint).layout
    model = load_policy(ModelSection(path=base, dtype=dtype, gradient_checkpointing=False))
    _check_same_model(layout, model, f"{checkpoint}, base model {base}")
    weights = _weights(checkpoint, layout.zero_stage)
    missing, unknown = model.load_state_dict(weights, strict=False)
    missing = set(missing) - model.all_tied_weights_keys.keys()  # a tied weight need not be stored twice
    assert not missing, f"DeepSpeed gave back fewer weights than it saved: {missing}"
    assert not unknown, f"DeepSpeed gave back weights that it never had: {unknown}"
    model.tie_weights()
    save_policy(model, load_processor(base), folder)
    return folder


def _check_same_model(layout: Layout, model: nn.Module, where: str) -> None:
    """Raise ExportError unless checkpoint and base model have parameters of the same names and shapes."""
    saved = {name: list(shape) for name, shape, _ in layout.params}
    present = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    for name in sorted(saved.keys() | present.keys()):
        if saved.get(name) != present.get(name):
            raise ExportError(
                f"{name} is {saved.get(name, 'missing')} in the checkpoint and {present.get(name, 'missing')} in the "
                "model that its run started from",
                where=where,
                cure="restore the model folder that the run started from",
            )


def _weights(checkpoint: Path, zero_stage: int) -> dict[str, Tensor]:
    """Weights by the model's own names, in fp32 where ZeRO kept them so."""
    import torch
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    if zero_stage > 0:
        with redirect_stdout(sys.stderr):  # it prints what it does
            state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag=STATE_TAG)
    else:
        states = checkpoint / STATE_TAG / "mp_rank_00_model_states.pt"
        state = torch.load(states, map_location="cpu", weights_only=False)["module"]
    assert isinstance(state, dict)
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
