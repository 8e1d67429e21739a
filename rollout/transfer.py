"""New weights through vLLM's weight-transfer API: from the learner's GPUs to the engines' by NCCL, past the driver.

    learner rank 0                       every engine (RolloutWorker ─> VllmEngine ─> vLLM's workers)
    init_weight_transfer_engine   ──>    joins the NCCL group; once for as long as the same actors live
    start_weight_update           ──>    the engine has no version from here on
    update_weights + broadcasts   ──>    receives, sums up, loads
    finish_weight_update          ──>    every layer has its weights
                                         commit: sums compared, caches emptied, version set last

The functions here run in vLLM's worker processes, inside `collective_rpc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightDigest
from rollout.weights import MissingWeights

if TYPE_CHECKING:
    import torch

LOAD = "load_weights"  # the model's method that vLLM's transfer calls with what it received


@dataclass(frozen=True, slots=True)
class EngineActors:
    """The engines of a pool, as the learner must know them to send them weights."""

    actors: tuple[Any, ...]  # handles of RolloutWorkers
    ranks_each: int  # GPUs of one

    @property
    def ids(self) -> tuple[str, ...]:
        """Which processes these are: a replaced actor has another id."""
        return tuple(actor._actor_id.hex() for actor in self.actors)


@dataclass(frozen=True, slots=True)
class Received:
    """What one vLLM worker got in a transfer."""

    checksum: int
    missing: tuple[str, ...]  # class names of layers that got no weights


@dataclass(slots=True)
class _SummedLoad:
    """A model's load_weights that takes note of all that it is given."""

    load: Callable[[Iterable[tuple[str, torch.Tensor]]], set[str] | None]
    digest: WeightDigest = field(default_factory=WeightDigest)

    def __call__(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str] | None:
        pairs = list(weights)
        for name, tensor in pairs:
            self.digest.add(name, tensor)
        return self.load(pairs)


def start_update(worker: Any) -> None:
    """Make one vLLM worker ready to receive weights."""
    model = worker.get_model()
    vars(model).pop(LOAD, None)  # of a transfer that broke off
    setattr(model, LOAD, _SummedLoad(getattr(model, LOAD)))
    worker.start_weight_update()


def finish_update(worker: Any) -> Received:
    """End an update on one vLLM worker; what it received."""
    load: _SummedLoad = vars(worker.get_model()).pop(LOAD)
    with MissingWeights() as missing:
        worker.finish_weight_update()
    return Received(load.digest.checksum, tuple(missing.found))


def check_received(received: Iterable[Received], checksum: int) -> None:
    """Raise RolloutError if a rank got other weights than were sent."""
    found = {one.checksum for one in received} - {checksum}
    if found:
        raise RolloutError(
            f"weights changed on their way to a rollout engine: checksum {found.pop():08x}, not {checksum:08x}",
            where="cluster.weight_transfer=nccl",
            cure="set cluster.weight_transfer=shared_memory and go on with --resume; if it happens again, look for "
            "failing memory or links on the engine's node",
        )
