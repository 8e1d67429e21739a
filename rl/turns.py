"""Whose turn it is on GPUs that the learner and the engines share (cluster.colocate).

    sampling   engines awake, learner's states in the CPU's memory
    training   engines asleep, nothing of theirs on the GPUs

    update:  engines sleep ─> learner takes its memory back ─> update
    sync:    weights to shared memory ─> learner gives its memory up ─> engines: memory for weights, load, KV cache

A run starts in training. Where learner and engines have GPUs of their own nothing of this is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Sleeper(Protocol):
    """Engines; `rollout.pool.RolloutPool` is one. A sync wakes them."""

    def sleep(self) -> None: ...

    def close(self) -> None: ...


class Rester(Protocol):
    """A learner; `rl.learner_client.LearnerClient` is one."""

    def rest(self) -> None: ...

    def wake(self) -> None: ...


class Turns:
    """Keeps track of the turn.

    Args:
        run: does work that uses the engines, when they are free.
        shared: whether there is anything to keep track of.
    """

    def __init__(
        self, learner: Rester, engines: Sleeper, run: Callable[[Callable[[], None]], None], *, shared: bool
    ) -> None:
        self._learner, self._engines, self._run = learner, engines, run
        self._shared, self._training = shared, shared

    @property
    def is_learners(self) -> bool:
        """Whether engines sleep, so that a sync must come before they are used."""
        return self._training

    def to_learner(self) -> None:
        """Before the learner is used."""
        if self._shared and not self._training:
            self._run(self._engines.sleep)
            self._learner.wake()
            self._training = True

    def to_engines(self) -> None:
        """Between fetching weights and loading them into the engines, which wakes them."""
        if self._shared and self._training:
            self._learner.rest()
            self._training = False

    def to_new_learner(self) -> None:
        """Before ranks are started again: those that come need no waking."""
        if self._shared and not self._training:
            self._run(self._engines.sleep)
            self._training = True

    def end(self) -> None:
        """Before the learner is used for the last time, whatever state the engines are in."""
        if self._shared and not self._training:
            self._engines.close()
            self._learner.wake()
            self._training = True
