"""Which actors go on which node: the same order and preferences as Ray's, so that a plan shows what will happen."""

from __future__ import annotations

import math
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
    gpus: float  # of one; below 1: a part of a GPU
    does: str
    beside_ray: bool = False  # not started by the run: it only must have the room

    @property
    def each(self) -> str:
        """What one asks for, in words."""
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


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


@dataclass(slots=True)
class _Free:
    """What a node has left."""

    cpus: float
    cards: list[float]  # of each GPU, the part that is free

    def room(self, actor: ActorPlan) -> int:
        """How many of an actor fit. A part of a GPU is of one card."""
        by_cpus = int((self.cpus + ROUNDING) / actor.cpus)
        if not actor.gpus:
            return by_cpus
        if actor.gpus < 1:
            by_gpus = sum(int((card + ROUNDING) / actor.gpus) for card in self.cards)
        else:
            by_gpus = int(sum(card >= 1 for card in self.cards) // actor.gpus)
        return min(by_cpus, by_gpus)

    def take(self, actor: ActorPlan) -> None:
        """Place one, on the cards that have the least left."""
        self.cpus -= actor.cpus
        each = min(actor.gpus, 1.0)
        for _ in range(math.ceil(actor.gpus)):
            card = min((i for i, free in enumerate(self.cards) if free + ROUNDING >= each), key=self.cards.__getitem__)
            self.cards[card] -= each


def lay_out(actors: Sequence[ActorPlan], nodes: Sequence[Node]) -> Layout:
    """Place each kind in turn on as few nodes as hold it: on the smallest room that takes all, or the largest first.

    An actor is never divided: an engine's GPUs are of one node.
    """
    free = {node.name: _Free(node.cpus, [1.0] * node.gpus) for node in nodes}
    shares: list[Share] = []
    for actor in actors:
        left = actor.count
        while left:
            rooms = {name: one.room(actor) for name, one in free.items()}
            enough = [name for name, room in rooms.items() if room >= left]
            name = min(enough, key=rooms.__getitem__) if enough else max(rooms, key=rooms.__getitem__)
            count = min(left, rooms[name])
            if not count:
                return Layout(tuple(shares), _missing(actor, left, free))
            shares.append(Share(name, actor.role, count))
            for _ in range(count):
                free[name].take(actor)
            left -= count
    return Layout(tuple(shares), None)


def _missing(actor: ActorPlan, left: int, free: dict[str, _Free]) -> str:
    most = max(free.values(), key=lambda one: (sum(one.cards), one.cpus))
    return (
        f"{left} of {actor.count} {actor.role} actors of {actor.each} each find no node; the most that a node has "
        f"left is {max(0.0, most.cpus):g} CPU and {sum(most.cards):g} GPU"
    )
