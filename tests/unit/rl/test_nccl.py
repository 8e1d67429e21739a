"""The learner's side of a transfer: places in the group, and weights that vLLM finds as they were declared."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
import torch
from torch import nn
from vllm.distributed.weight_transfer import VLLMWeightSyncClient
from vllm.distributed.weight_transfer.nccl_engine import (
    NCCLTrainerInitInfo,
    NCCLTrainerWeightTransferEngine,
    NCCLWeightTransferInitInfo,
)

from owlcap.training.buckets import WeightDigest
from owlcap.training.engine import TrainingEngine
from rl.nccl import EngineClient, GatheredWeights
from rollout.transfer import EngineActors


class Actor:
    """Notes the calls that an engine would get."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self.calls.append((method, *arguments)))


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2, dtype=torch.bfloat16)


class Engine:
    """A training engine of two buckets."""

    def __init__(self) -> None:
        self.module = Policy()

    def gathered_state(self, *, on_device: bool) -> Iterator[list[tuple[str, torch.Tensor]]]:
        assert on_device
        pairs = [(name, tensor.detach()) for name, tensor in self.module.state_dict().items()]
        yield pairs[:1]
        yield pairs[1:]


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[Actor]:
    monkeypatch.setattr(ray, "get", lambda calls, timeout: None)
    return [Actor(), Actor(), Actor()]


def source() -> GatheredWeights:
    return GatheredWeights(cast(TrainingEngine, Engine()))


def test_engines_take_places_of_their_own_behind_the_learner(actors: list[Actor]) -> None:
    client = EngineClient(EngineActors(tuple(actors), ranks_each=2), deadline_s=1.0)
    info = NCCLWeightTransferInitInfo(master_address="a", master_port=1, rank_offset=1, world_size=7)
    client.init_weight_transfer_engine(vars(info))
    assert [actor.calls[0][1]["rank_offset"] for actor in actors] == [1, 3, 5]
    assert {actor.calls[0][1]["world_size"] for actor in actors} == {7}


def test_every_call_of_vllms_client_reaches_every_engine(actors: list[Actor]) -> None:
    client = EngineClient(EngineActors(tuple(actors), ranks_each=1), deadline_s=1.0)
    assert isinstance(client, VLLMWeightSyncClient)
    client.start_weight_update()
    client.update_weights({"names": []})
    client.finish_weight_update()
    expected = [("start_weight_update",), ("update_weights", {"names": []}), ("finish_weight_update",)]
    assert all(actor.calls == expected for actor in actors)


def test_the_calls_have_the_parameters_that_vllm_names() -> None:
    for name in ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update"):
        theirs, ours = (inspect.signature(getattr(one, name)) for one in (VLLMWeightSyncClient, EngineClient))
        assert list(ours.parameters) == list(theirs.parameters)


def test_weights_come_as_they_were_declared_and_are_copies() -> None:
    weights = source()
    sent = dict(weights)
    assert [(one.name, one.dtype, one.shape) for one in weights.metadata()] == [
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()
    ]
    live = weights._engine.module.state_dict()
    assert all(torch.equal(tensor, live[name]) for name, tensor in sent.items())
    assert not {tensor.data_ptr() for tensor in sent.values()} & {tensor.data_ptr() for tensor in live.values()}


def test_the_digest_is_of_the_last_round() -> None:
    weights, by_hand = source(), WeightDigest()
    for _ in range(2):
        pairs = list(weights)
    for name, tensor in pairs:
        by_hand.add(name, tensor)
    assert weights.digest == by_hand
    assert weights.digest.num_bytes == (3 * 2 + 2) * 4 + (2 * 2 + 2) * 2


def test_a_rank_that_does_not_send_makes_no_call_and_gathers_with_the_others(actors: list[Actor]) -> None:
    weights = source()
    client = EngineClient(EngineActors(tuple(actors), ranks_each=1), deadline_s=1.0)
    info = NCCLTrainerInitInfo("a", 1, 4, rank=1)
    NCCLTrainerWeightTransferEngine.trainer_init(info, client=client, source=weights).send_weights()
    assert weights.digest.num_bytes
    assert not any(actor.calls for actor in actors)
