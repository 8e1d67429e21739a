"""New policy weights into a running vLLM engine.

vLLM's CPU layers hold repacked weights, so `model.load_weights` fails once an engine is up; its layer-wise reload
works on CPU and GPU and is used on both. Weights come as lists of (name, array) with checkpoint names; on a node they
are views of Ray's shared memory and are read without a copy.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from owlcap.errors import RolloutError
from owlcap.training.buckets import NamedArrays

if TYPE_CHECKING:
    import torch

# These layers hold only tables that vLLM computes itself: that no weight reaches them is right.
COMPUTED_LAYERS = frozenset({"RotaryEmbedding", "MRotaryEmbedding", "FusedMMInputNorm"})
LAYER_LOGGER = "vllm.model_executor.model_loader.reload.layerwise"
MODEL_LOGGER = "vllm.v1.worker.gpu_model_runner"


def reload_weights(worker: Any, buckets: Iterable[NamedArrays]) -> list[str]:
    """Load `buckets` into one vLLM worker's model; runs inside `collective_rpc`.

    Args:
        worker: vLLM's worker object of one rank.
        buckets: the weights. An iterator that fetches one bucket at a time does, in the engine's own process.

    Returns:
        What was not loaded: class names of layers, or names of weights. Empty when every weight arrived.
    """
    with MissingWeights() as missing, warnings.catch_warnings():
        # Arrays from Ray's shared memory are read-only. vLLM only reads them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        worker.reload_weights(weights_iterator=_tensors(buckets))
    return missing.found


def check_all_loaded(missing: Iterable[list[str]], version: int) -> None:
    """Raise RolloutError if any rank reported weights that did not arrive."""
    names = sorted({name for of_rank in missing for name in of_rank})
    if names:
        raise RolloutError(
            f"weights of policy version {version} did not reach every layer of the engine",
            where=", ".join(names[:8]) + (" ..." if len(names) > 8 else ""),
            allowed="every weight of the checkpoint, lm_head.weight included when it is tied",
            cure="send owlcap.models.load.policy_state_dict(model)",
        )


def _tensors(buckets: Iterable[NamedArrays]) -> Iterator[tuple[str, torch.Tensor]]:
    import numpy as np
    import torch

    for bucket in buckets:
        for name, array in bucket:
            tensor = torch.from_numpy(array)
            # numpy has no bfloat16: its bit patterns travel as uint16.
            yield name, tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


class MissingWeights:
    """Collects vLLM's warnings about weights that did not arrive; they are its only report."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._loggers = [logging.getLogger(name) for name in (LAYER_LOGGER, MODEL_LOGGER)]
        self._levels = [logger.level for logger in self._loggers]

    def __enter__(self) -> MissingWeights:
        for logger in self._loggers:
            logger.addFilter(self._keep)
            logger.setLevel(logging.WARNING)
        return self

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.removeFilter(self._keep)
            logger.setLevel(level)

    def _keep(self, record: logging.LogRecord) -> bool:
        """Take note of a record about missing weights and silence it; let others pass."""
        if record.msg == "%s: Failed to load weights" and isinstance(record.args, tuple):
            name = str(record.args[0])
            if name not in COMPUTED_LAYERS:
                self.found.append(name)
            return False
        if str(record.msg).startswith("Following weights were not loaded") and isinstance(record.args, tuple):
            self.found.extend(cast("set[str]", record.args[0]))
            return False
        return True
