"""The learner's side of vLLM's weight-transfer API (its class NCCLTrainerWeightTransferEngine); imported where used.

Rank 0 is the sender and drives the engines' calls; every rank takes part in gathering what ZeRO-3 has divided, bucket
by bucket. The group joins rank 0 and all GPUs of all engines, and is made anew when an engine is another process.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
import torch
from vllm.distributed.weight_transfer import ParamMeta, WeightSource, WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from owlcap.models.lora import stored_weights
from owlcap.training.buckets import WeightDigest
from owlcap.training.engine import TrainingEngine
from rollout.transfer import EngineActors


class EngineClient:
    """vLLM's four control calls, to several engines at once, each with its own place in the group.

    vLLM's own client for Ray gives all actors one place: it is made for the parts of a single engine.
    """

    def __init__(self, engines: EngineActors, deadline_s: float) -> None:
        self._engines, self._deadline_s = engines, deadline_s

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Join the group: engine i's first GPU comes i engines after the first."""
        first, each = init_info["rank_offset"], self._engines.ranks_each
        places = [init_info | {"rank_offset": first + i * each} for i in range(len(self._engines.actors))]
        self._call("init_weight_transfer_engine", places)

    def start_weight_update(self) -> None:
        """Make all engines ready."""
        self._call("start_weight_update")

    def update_weights(self, update_info: Mapping[str, Any] | list[dict[str, Any]]) -> None:
        """Have all engines receive; returns when they have."""
        self._call("update_weights", [update_info] * len(self._engines.actors))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Tell all engines that this was all. The driver sets the version, when checksums agree."""
        self._call("finish_weight_update")

    def _call(self, method: str, arguments: Sequence[object] | None = None) -> None:
        actors = self._engines.actors
        given = [()] * len(actors) if arguments is None else [(one,) for one in arguments]
        calls = [getattr(actor, method).remote(*one) for actor, one in zip(actors, given, strict=True)]
        ray.get(calls, timeout=self._deadline_s)


class GatheredWeights(WeightSource):
    """A training engine's weights as vLLM's trainer takes them; `digest` is of the last round, on rank 0."""

    def __init__(self, engine: TrainingEngine) -> None:
        self._engine = engine
        self.digest = WeightDigest()

    def metadata(self) -> list[ParamMeta]:
        """Names, types and full shapes, without gathering anything."""
        return [
            ParamMeta(one.name, one.tensor.dtype, tuple(getattr(one.tensor, "ds_shape", one.tensor.shape)))
            for one in stored_weights(self._engine.module)
        ]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All weights on rank 0, none on the others, which take part in gathering."""
        self.digest = WeightDigest()
        for bucket in self._engine.gathered_state(on_device=True):
            for name, tensor in bucket:
                sent = tensor.clone()  # vLLM may still be sending it when the bucket's memory is given back
                self.digest.add(name, sent)
                yield name, sent


class NcclSender:
    """One learner rank's part in every transfer of a run."""

    def __init__(self, engine: TrainingEngine, rank: int) -> None:
        self._source, self._rank = GatheredWeights(engine), rank
        self._joined: tuple[str, ...] = ()
        self._trainer: Any = None

    def send(self, engines: EngineActors, deadline_s: float) -> WeightDigest:
        """Send the present weights to all engines; what was sent (nothing, says a rank other than 0)."""
        if engines.ids != self._joined:
            self._join(engines, deadline_s)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # vLLM reads the weights on streams of its own
        self._trainer.send_weights()
        return self._source.digest

    def _join(self, engines: EngineActors, deadline_s: float) -> None:
        if self._trainer is not None:
            self._trainer.shutdown()
        self._joined = ()
        info = NCCLTrainerInitInfo(
            master_address=ray.util.get_node_ip_address(),
            master_port=_free_port(),
            world_size=1 + len(engines.actors) * engines.ranks_each,
            rank=self._rank,
        )
        client = EngineClient(engines, deadline_s)
        self._trainer = WeightTransferTrainerFactory.trainer_init(info, client=client, source=self._source)
        self._joined = engines.ids


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]
