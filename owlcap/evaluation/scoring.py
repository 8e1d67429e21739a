"""Scoring groups while others are still being generated: in reward actors, or by a suite in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from owlcap.errors import OwlcapError, RewardError
from owlcap.types import RolloutGroup, Sample, ScoredGroup, ScoredRollout


class CaptionScorer(Protocol):
    """What scores captions against a sample's reference; `rewards.suite.RewardSuite` is one."""

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
        """One score, or a stated failure, for each caption."""
        ...

    async def close(self) -> None:
        """Release connections of the running event loop; scoring again opens new ones."""
        ...


@runtime_checkable
class GroupScorerPool(Protocol):
    """What scores groups in Ray actors; `rewards.service.RewardPool` is one."""

    def submit(self, group: RolloutGroup) -> Any:
        """An object reference of the ScoredGroup."""
        ...

    def cancel(self, ref: Any) -> None:
        """Stop scoring the group of this reference; nothing happens where it is done."""
        ...


class GroupScoring:
    """Takes groups as they finish and gives all of them back scored. Use as a context manager, or `open` and `close`.

    Args:
        scorer: a reward pool, or a suite, which is then run in a thread of its own and closed at the end.
        deadline_s: for the scores that are still out when the last group is in.
    """

    def __init__(self, scorer: GroupScorerPool | CaptionScorer, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._pool = scorer if isinstance(scorer, GroupScorerPool) else None
        self._suite = None if isinstance(scorer, GroupScorerPool) else scorer
        self._pending: list[Any] = []  # object references, or futures of the suite's thread
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scoring", daemon=True)

    def __enter__(self) -> GroupScoring:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)

    def open(self) -> None:
        """Get ready; `close` must follow."""
        if self._suite is not None:
            self._thread.start()

    def close(self, *, cancel: bool) -> None:
        """Release what `open` took; `cancel`: nobody wants the scores that are still out."""
        if self._pool is not None and cancel:
            for ref in self._pending:
                self._pool.cancel(ref)
        if self._suite is not None:
            for future in self._pending:
                future.cancel()
            asyncio.run_coroutine_threadsafe(self._suite.close(), self._loop).result(self._deadline_s)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def submit(self, group: RolloutGroup) -> None:
        """Start scoring a group."""
        if self._pool is not None:
            self._pending.append(self._pool.submit(group))
        else:
            self._pending.append(asyncio.run_coroutine_threadsafe(self._score(group), self._loop))

    def finish(self) -> list[ScoredGroup]:
        """All groups scored, in the order they came.

        Raises:
            RewardError: scores are still out after the deadline, or a reward broke its contract.
        """
        try:
            return self._from_actors() if self._pool is not None else self._from_thread()
        except TimeoutError as error:
            raise RewardError(
                f"captions were still unscored {self._deadline_s:g} s after the last was generated",
                cure="look into the judge's server, or lower rewards.rollout_deadline_s so that it gives up earlier",
            ) from error

    async def _score(self, group: RolloutGroup) -> ScoredGroup:
        assert self._suite is not None
        captions = [completion.text for completion in group.completions]
        return ScoredGroup(group, tuple(await self._suite.score_group(group.sample, captions)))

    def _from_thread(self) -> list[ScoredGroup]:
        pending: list[Future[ScoredGroup]] = self._pending
        return [future.result(self._deadline_s) for future in pending]

    def _from_actors(self) -> list[ScoredGroup]:
        import ray
        from ray.exceptions import RayTaskError

        try:
            return ray.get(self._pending, timeout=self._deadline_s)  # its GetTimeoutError is a TimeoutError
        except RayTaskError as error:
            if isinstance(error.cause, OwlcapError):
                raise error.cause from error
            raise
