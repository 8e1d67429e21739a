"""Which step's captions are made when: at its turn, or while earlier steps are trained.

    sync      generate ──> judge ──> update ──> weights ──> generate ...
    overlap   each group is judged while the others are generated
    async     as overlap, and the engines are `ahead` steps in front of the learner:

        engines   gen 1 | gen 2 | w1, gen 3 | w2, gen 4 ...        w1: the weights after update 1
        driver          | judge 1, update 1 | judge 2, update 2 ...

In `async` a step's captions come from a policy at most `ahead` updates older than the one they train; the importance
of their tokens is corrected by algorithm.rollout_correction, and groups beyond pipeline.max_staleness are left out.
With algorithm.dynamic_sampling a step takes further prompts until enough of its groups have different rewards (DAPO).

With `ahead: 1` which weights sample which step does not depend on timing, so a run can be repeated exactly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from owlcap.config import RlRun
from owlcap.evaluation.scoring import CaptionScorer, GroupScorerPool
from owlcap.training.checkpoint import DataCursor
from owlcap.types import Sample, ScoredGroup
from rl.advantages import is_informative
from rl.collect import Collected, Collection, GroupSource, make_requests, scoring_deadline
from rl.engine_thread import EngineThread
from rl.state import PromptOrder
from rl.weight_sync import DirectWeights, SyncStats, WeightBuckets, WeightReceiver, load_weights

if TYPE_CHECKING:
    from rl.overlays import OverlayActors

T = TypeVar("T")


class Engines(GroupSource, WeightReceiver, Protocol):
    """Rollout engines; `rollout.pool.RolloutPool` is one."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A step's captions being made."""

    collection: Collection
    generated: Future[None]
    cursor: DataCursor  # of the prompts after these


@dataclass(frozen=True, slots=True)
class StepCaptions:
    """A step's captions with their scores."""

    collected: Collected
    cursor: DataCursor  # of the next step's prompts
    waited_s: float  # by the driver, for captions that were not generated yet
    num_rounds: int = 1  # of sampling; more with algorithm.dynamic_sampling


class Pipeline:
    """Makes the captions of steps in their order, and keeps the engines busy while the driver trains.

    `source` captions clips: the engines, behind the motion actors where there are any.

    Args:
        last_step: no captions are made for steps after it.
        overlays: makes the overlays of a step's prompts while the step before is trained.
    """

    def __init__(
        self,
        cfg: RlRun,
        thread: EngineThread,
        pool: Engines,
        scorer: GroupScorerPool | CaptionScorer,
        samples: Sequence[Sample],
        order: PromptOrder,
        last_step: int,
        overlays: OverlayActors | None = None,
    ) -> None:
        self._cfg, self._thread, self._pool, self._scorer = cfg, thread, pool, scorer
        self._overlays = overlays
        self.source: GroupSource = pool if overlays is None else overlays.before(pool)
        self._samples, self._order, self._last_step = samples, order, last_step
        self._ahead = cfg.pipeline.ahead if cfg.pipeline.mode == "async" else 0
        # One step ahead: in the order asked for, whose captions are always one update old. Further: as new as can be.
        self._first = self._ahead > 1
        self._deadline_s = scoring_deadline(cfg.rewards, cfg.rollout)
        self._under_way: deque[_UnderWay] = deque()
        self._loading: Future[SyncStats] | None = None

    def take(self, step: int, cursor: DataCursor) -> StepCaptions:
        """Captions of the next step, scored. Generation of the steps after it goes on.

        Args:
            step, cursor: the first step that has not been taken, and its place in the data.
        """
        while len(self._under_way) <= self._ahead and step + len(self._under_way) <= self._last_step:
            next_cursor = self._under_way[-1].cursor if self._under_way else cursor
            self._under_way.append(self._begin(step + len(self._under_way), next_cursor))
        taken = self._wait()
        while self._wants_more(taken):
            self._under_way.append(self._begin(step, taken.cursor, taken.num_rounds))
            taken = _together(taken, self._wait())
        return taken

    def sync(self, weights: WeightBuckets | DirectWeights, version: int) -> SyncStats | None:
        """Load weights into the engines; more than a step ahead, before any other work they have not begun.

        Returns:
            What it took; in `async`, which does not wait, what the sync before took, if it is done.
        """
        before = self._loading
        self._loading = self._thread.submit(lambda: load_weights(weights, self._pool, version), first=self._first)
        if not self._ahead:
            return self._loading.result()
        return before.result() if before is not None and before.done() else None

    def run(self, work: Callable[[], T]) -> T:
        """Let something else use the engines, with the weights that were synced last; its result."""
        return self._thread.submit(work, first=self._first).result()

    def restart(self) -> None:
        """Forget the steps under way: the learner went back to an earlier state."""
        abandoned = list(self._under_way)
        self._under_way.clear()
        for item in abandoned:
            item.generated.cancel()
        for item in abandoned:
            if not item.generated.cancelled():
                item.generated.exception()  # waits; what failed the engines fails what comes next too
            item.collection.abandon()

    def _wait(self) -> StepCaptions:
        started = time.perf_counter()
        first = self._under_way[0]
        first.generated.result()
        waited_s = time.perf_counter() - started
        self._under_way.popleft()
        return StepCaptions(first.collection.finish(), first.cursor, waited_s)

    def _wants_more(self, taken: StepCaptions) -> bool:
        algorithm = self._cfg.algorithm
        if not algorithm.dynamic_sampling or taken.num_rounds >= algorithm.max_sampling_rounds:
            return False
        scored = [result for result in taken.collected.results if isinstance(result, ScoredGroup)]
        return sum(is_informative(group.totals) for group in scored) < self._cfg.rollout.prompts_per_step

    def _begin(self, step: int, cursor: DataCursor, num_rounds: int = 0) -> _UnderWay:
        samples = [self._samples[row] for row in self._order.rows(cursor)]
        first_index = num_rounds * len(samples)
        requests = make_requests(samples, self._cfg.rollout, self._cfg.seed, step, first_index)
        at_once = self._cfg.pipeline.mode != "sync"
        collection = Collection(self._scorer, requests, self._deadline_s, judge_at_once=at_once)
        generated = self._thread.submit(lambda: collection.generate(self.source))
        after = self._order.after(cursor)
        if self._overlays is not None:
            self._overlays.begin([*samples, *(self._samples[row] for row in self._order.rows(after))])
        return _UnderWay(collection, generated, after)


def _together(a: StepCaptions, b: StepCaptions) -> StepCaptions:
    """Two rounds of one step."""
    collected = Collected(
        a.collected.results + b.collected.results,
        a.collected.generate_s + b.collected.generate_s,
        a.collected.judge_s + b.collected.judge_s,
    )
    return StepCaptions(collected, b.cursor, a.waited_s + b.waited_s, a.num_rounds + b.num_rounds)
