"""An engine's side of a transfer: what arrives is summed up on its way into the model."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightDigest
from rollout.transfer import Received, check_received, finish_update, start_update
from rollout.weights import LAYER_LOGGER

PAIRS = [("a", torch.arange(6.0).view(2, 3)), ("b", torch.tensor([1.5, -2.0], dtype=torch.bfloat16))]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def load_weights(self, weights) -> set[str]:
        names = [name for name, _ in weights]
        self.loaded += names
        return set(names)


class Worker:
    """vLLM's worker, as far as a transfer sees it."""

    def __init__(self) -> None:
        self.model, self.calls, self.missing = Model(), [], ()

    def get_model(self) -> Model:
        return self.model

    def start_weight_update(self) -> None:
        self.calls.append("start")

    def finish_weight_update(self) -> None:
        self.calls.append("finish")
        for layer in self.missing:
            logging.getLogger(LAYER_LOGGER).warning("%s: Failed to load weights", layer)


def digest_of(pairs) -> int:
    digest = WeightDigest()
    for name, tensor in pairs:
        digest.add(name, tensor)
    return digest.checksum


def test_what_arrives_is_loaded_and_summed_over_all_calls() -> None:
    worker = Worker()
    start_update(worker)
    assert worker.model.load_weights(PAIRS[:1]) == {"a"}
    worker.model.load_weights(iter(PAIRS[1:]))
    assert finish_update(worker) == Received(digest_of(PAIRS), ())
    assert (worker.model.loaded, worker.calls) == (["a", "b"], ["start", "finish"])


def test_the_model_is_left_as_it_was_and_a_broken_off_update_is_forgotten() -> None:
    worker = Worker()
    start_update(worker)
    worker.model.load_weights(PAIRS)
    start_update(worker)
    worker.model.load_weights(PAIRS[:1])
    assert finish_update(worker).checksum == digest_of(PAIRS[:1])
    assert "load_weights" not in vars(worker.model)


def test_layers_without_weights_are_named() -> None:
    worker = Worker()
    worker.missing = ("RMSNorm", "RotaryEmbedding")
    start_update(worker)
    assert finish_update(worker).missing == ("RMSNorm",)


def test_one_rank_with_other_weights_is_an_error_with_the_cure() -> None:
    check_received([Received(7, ()), Received(7, ())], 7)
    with pytest.raises(RolloutError, match="checksum 00000008, not 00000007") as caught:
        check_received([Received(7, ()), Received(8, ())], 7)
    assert "cluster.weight_transfer=shared_memory" in str(caught.value)
