"""Weights on their way to the engines: form of the arrays, and versions that must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightDigest
from rl.weight_sync import DirectWeights, WeightBuckets, as_array, as_buckets, load_weights
from rollout.transfer import EngineActors

BUCKETS = WeightBuckets(("a reference",), num_bytes=12)  # type: ignore[arg-type]


class Engines:
    """Two engines; the second may miss a sync."""

    def __init__(self, deaf: bool) -> None:
        self.held, self.deaf, self.got = [0, 0], deaf, ()

    def sync(self, refs: Sequence[Any], version: int) -> None:
        self.got = tuple(refs)
        self.held = [version, self.held[1] if self.deaf else version]

    def receive(
        self, send: Callable[[EngineActors], WeightDigest], later: Callable[[], Sequence[Any]], version: int
    ) -> WeightDigest:
        sent = send(EngineActors((), 1))
        self.sync(later(), version)
        return sent

    def versions(self) -> tuple[int, ...]:
        return tuple(self.held)


def test_all_engines_hold_the_new_version() -> None:
    engines = Engines(deaf=False)
    stats = load_weights(BUCKETS, engines, version=3)
    assert engines.versions() == (3, 3)
    assert engines.got == ("a reference",)
    assert stats.num_bytes == 12


def test_weights_that_the_learner_sends_itself_are_received_by_all_engines() -> None:
    engines = Engines(deaf=False)
    weights = DirectWeights(lambda actors: WeightDigest(checksum=7, num_bytes=30), lambda: BUCKETS)
    stats = load_weights(weights, engines, version=3)
    assert engines.versions() == (3, 3)
    assert engines.got == ("a reference",)  # what a replaced engine would load
    assert (stats.num_bytes, stats.gather_s) == (30, 0.0)


def test_an_engine_with_an_old_version_stops_the_run() -> None:
    with pytest.raises(RolloutError, match=r"hold policy versions \(3, 0\) after a sync to 3"):
        load_weights(BUCKETS, Engines(deaf=True), version=3)


def test_bfloat16_travels_as_its_bit_patterns() -> None:
    weight = torch.tensor([1.0, -2.5, 3.140625], dtype=torch.bfloat16)
    array = as_array(weight)
    assert array.dtype == np.uint16
    assert torch.equal(torch.from_numpy(array).view(torch.bfloat16), weight)


def test_float32_is_a_view_of_the_weight_itself() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    array = as_array(weight)
    assert np.shares_memory(array, weight.numpy())
    assert as_array(weight.T).tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_a_rank_without_weights_yields_nothing() -> None:
    assert list(as_buckets([[], []])) == []
