"""Which actors go on which node: the same order and preferences as Ray's, so that a plan shows what will happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROUNDING = 1e-6  # of CPUs, which are fractions


@dataclass(frozen=True, slots=True)
class Node:
    """What a machine has for actors."""

    name: str
    cpus: float
    gpus: int


@dataclass(frozen=True, slots=True)
class ActorPlan:
    """One kind of actor."""

    role: str
    count: int
    cpus: float  # of one
    gpus: int  # of one
    does: str

    @property
    def each(self) -> str:
        """What one asks for, in words."""
        return f"{self.cpus:g} CPU" + (f" and {self.gpus} GPU" if self.gpus else "")


@dataclass(frozen=True, slots=True)
class Share:
    """Actors of one kind on one node."""

    node: str
    role: str
    count: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where all actors go; `missing` says of what kind some found no place, or is None."""

    shares: tuple[Share, ...]
    missing: str | None

    def on(self, node: str) -> tuple[Share, ...]:
        """The actors of a node."""
        return tuple(share for share in self.shares if share.node == node)


def lay_out(actors: Sequence[ActorPlan], nodes: Sequence[Node]) -> Layout:
    """Place each kind in turn on as few nodes as hold it: on the smallest room that takes all, or the largest first.

    An actor is never divided: an engine's GPUs are of one node.
    """
    free = {node.name: [node.cpus, node.gpus] for node in nodes}
    shares: list[Share] = []
    for actor in actors:
        left = actor.count
        while left:
            rooms = {name: _room(actor, cpus, gpus) for name, (cpus, gpus) in free.items()}
            enough = [name for name, room in rooms.items() if room >= left]
            name = min(enough, key=rooms.__getitem__) if enough else max(rooms, key=rooms.__getitem__)
            count = min(left, rooms[name])
            if not count:
                return Layout(tuple(shares), _missing(actor, left, free))
            shares.append(Share(name, actor.role, count))
            free[name][0] -= count * actor.cpus
            free[name][1] -= count * actor.gpus
            left -= count
    return Layout(tuple(shares), None)


def _room(actor: ActorPlan, cpus: float, gpus: float) -> int:
    """How many of an actor fit."""
    by_cpus = int((cpus + ROUNDING) / actor.cpus)
    return min(by_cpus, int(gpus // actor.gpus)) if actor.gpus else by_cpus


def _missing(actor: ActorPlan, left: int, free: dict[str, list[float]]) -> str:
    most = max(free, key=lambda name: (free[name][1], free[name][0]))
    cpus, gpus = free[most]
    return (
        f"{left} of {actor.count} {actor.role} actors of {actor.each} each find no node; the most that a node has "
        f"left is {max(0.0, cpus):g} CPU and {gpus:g} GPU"
    )
