"""The reward service: Ray actors that score groups as they finish.

    pool = RewardPool(cfg.rewards, cfg.cluster)
    refs = [pool.submit(group_ref) for group_ref in rollout_refs]   # may be submitted before they are generated
    scored = ray.get(refs)

An actor is a thin shell around a RewardSuite: it imports no torch, starts in about a second and scores many groups
at the same time, since judging is waiting. An actor that dies is restarted by Ray and its unfinished groups are
scored again, which is safe because scoring changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from owlcap.config import ClusterSection, JudgeSection, RewardsSection
from owlcap.errors import JudgeError, PlacementError, RewardError
from owlcap.logging import actor_environment, get_logger, setup_actor_logging
from owlcap.ray_metrics import RewardMetrics, count
from owlcap.registry import register, registered
from owlcap.types import RolloutFailure, RolloutGroup, ScoredGroup, Unscored
from rewards.chat import Usage
from rewards.judges import all_judges
from rewards.limits import LocalLimiter
from rewards.suite import make_suite

if TYPE_CHECKING:
    from ray import ObjectRef

logger = get_logger(__name__)
MAX_RESTARTS = 3  # of one actor; a plug-in that kills its process every time must not loop for ever
MAX_TASK_RETRIES = 3  # of one group, when its actor dies
SUBMIT_DEADLINE_S = 600.0  # for one group to be finished while no more may be out
USAGE_S = 10.0  # for the actors to tell what their judges were asked


class SharedLimiter:
    """The limits of a Ray actor that holds a LocalLimiter: the same for every process that has the handle."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def admit(self, judge: str, tokens: float) -> None:
        """See RateLimiter. A cancelled wait ends in the actor too, and gives back what it took."""
        turn = self._actor.admit.remote(judge, tokens)
        try:
            await turn
        except asyncio.CancelledError:
            ray.cancel(turn)
            raise

    async def settle(self, judge: str, extra_tokens: float) -> None:
        """See RateLimiter."""
        await self._actor.settle.remote(judge, extra_tokens)


class RewardWorker:
    """Actor that owns one RewardSuite.

    Args:
        plugins: rewards by the names that the driver's decorators gave them.
        limiter: handle of the actor that holds the judges' rates; None: they have none.
    """

    def __init__(self, index: int, rewards: RewardsSection, plugins: Mapping[str, object], limiter: Any | None) -> None:
        self._index = index
        self._life = uuid4().hex
        setup_actor_logging(f"reward-{index}")
        self._metrics = RewardMetrics(index)
        self._num_groups, self._told = 0, Usage()  # groups being scored; the judges' usage that is in the metrics
        for name, plugin in plugins.items():
            register("reward", name)(plugin)
        self._suite = make_suite(rewards, SharedLimiter(limiter) if limiter is not None else None)

    def __repr__(self) -> str:  # shown in Ray's logs and dashboard
        return f"RewardWorker({self._index})"

    async def ready(self) -> int:
        """The actor's index, once it answers."""
        return self._index

    async def check(self) -> None:
        """See RewardSuite.check."""
        await self._suite.check()

    async def usage(self) -> tuple[str, Usage]:
        """This life's name, and what its judges were asked: a restarted actor begins at nothing."""
        return self._life, self._suite.usage

    async def score(self, group: RolloutGroup | RolloutFailure) -> ScoredGroup | RolloutFailure:
        """Score all completions of a group; a prompt that failed in generation passes through as it is."""
        if isinstance(group, RolloutFailure):
            return group
        started = time.perf_counter()
        captions = [completion.text for completion in group.completions]
        self._waiting(+1)
        try:
            scores = await self._suite.score_group(group.sample, captions)
        finally:
            self._waiting(-1)
        scored = ScoredGroup(group, scores, score_s=time.perf_counter() - started)
        self._record(scored)
        return scored

    def _waiting(self, change: int) -> None:
        self._num_groups += change
        self._metrics.queue.set(self._num_groups)

    def _record(self, scored: ScoredGroup) -> None:
        """Tell Prometheus and this actor's log of a scored group, and of what the judges were asked meanwhile."""
        metrics, usage = self._metrics, self._suite.usage
        news, self._told = usage - self._told, usage
        failures = [score for score in scored.scores if isinstance(score, Unscored)]
        metrics.group_s.observe(scored.score_s)
        count(metrics.scored, len(scored.scores) - len(failures))
        count(metrics.unscored, len(failures))
        count(metrics.requests, news.num_requests)
        count(metrics.retries, news.num_retries)
        count(metrics.failed, news.num_failed)
        count(metrics.cached, news.num_cached)
        count(metrics.input_tokens, news.input_tokens)
        count(metrics.output_tokens, news.output_tokens)
        sample = scored.group.sample.id
        logger.info("%s: %d captions in %.2f s", sample, len(scored.scores), scored.score_s)
        for failure in failures:
            logger.warning("%s: unscored by %s: %s", sample, failure.reward, failure.reason)


@dataclass(slots=True)
class _Worker:
    actor: Any  # ray.actor.ActorHandle of RewardWorker
    usage: dict[str, Usage] = field(default_factory=dict)  # of each life of the actor, as last seen


class RewardPool:
    """`cluster.reward_workers` reward actors behind one `submit`.

    Attributes:
        limiter: handle of the actor that holds the judges' rates for all of them; None where no judge has one.

    Raises:
        ConfigError: a reward that cannot be built, before any actor starts.
    """

    def __init__(self, rewards: RewardsSection, cluster: ClusterSection) -> None:
        make_suite(rewards)
        self._max_unfinished = rewards.max_unfinished_groups
        self._unfinished: dict[ObjectRef, _Worker] = {}  # groups handed over, and not known to be scored
        self._is_open = True
        self._deadline_s = cluster.start_deadline_s
        self.limiter = _start_limiter(rewards)
        rewards = _share_of_judge(rewards, cluster.reward_workers)
        plugins = registered("reward", [term.name for term in rewards.terms])
        actor_class = ray.remote(RewardWorker)
        pool = uuid4().hex[:6]  # two pools may live in one cluster
        self._workers = [
            _Worker(
                actor_class.options(
                    name=f"rewards-{index}-{pool}",
                    num_cpus=cluster.cpus_per_reward,
                    max_restarts=MAX_RESTARTS,
                    max_task_retries=MAX_TASK_RETRIES,
                    runtime_env={"env_vars": actor_environment()},
                ).remote(index, rewards, plugins, self.limiter)
            )
            for index in range(cluster.reward_workers)
        ]

    @property
    def actors(self) -> tuple[Any, ...]:
        """Handles of the live actors."""
        return tuple(worker.actor for worker in self._workers)

    def wait_ready(self) -> None:
        """Block until every actor answers. Not needed before `submit`: it only tells early what is wrong.

        Raises:
            PlacementError: not all actors were up in cluster.start_deadline_s.
            RewardError: an actor died at its start.
        """
        try:
            ray.get([actor.ready.remote() for actor in self.actors], timeout=self._deadline_s)
        except GetTimeoutError as error:
            raise PlacementError(
                f"{len(self._workers)} reward actors were not up within {self._deadline_s:g} s",
                where="cluster.reward_workers, cluster.cpus_per_reward",
                cure="ask for fewer or smaller reward actors, or raise cluster.start_deadline_s",
            ) from error
        except RayActorError as error:
            raise RewardError(f"a reward actor died at its start: {error}") from error

    def check(self) -> None:
        """Ask the judges' servers, from an actor, whether they are there and have their models.

        Raises:
            JudgeError: one is not, has not, or refuses the key.
        """
        try:
            ray.get(self.actors[0].check.remote(), timeout=self._deadline_s)
        except RayTaskError as error:
            if isinstance(error.cause, JudgeError):
                raise error.cause from None
            raise
        except GetTimeoutError:
            raise JudgeError(
                f"the judges' servers were not checked within {self._deadline_s:g} s",
                where="cluster.start_deadline_s",
            ) from None

    def usage(self) -> Usage:
        """What the judges of all actors were asked so far. It never falls: what an actor had told before it died still
        counts; what it had not told is lost. One that does not answer in time counts as it did last."""
        asked = {worker.actor.usage.remote(): worker for worker in self._workers}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=USAGE_S) if asked else ([], [])
        for ref in answered:
            try:
                life, usage = ray.get(ref)
            except RayActorError:
                continue
            asked[ref].usage[life] = usage
        return sum((usage for worker in self._workers for usage in worker.usage.values()), Usage())

    def submit(
        self, group: ObjectRef | RolloutGroup | RolloutFailure, deadline_s: float = SUBMIT_DEADLINE_S
    ) -> ObjectRef:
        """Hand a group, or the reference of one still being generated, to the least loaded actor.

        Waits while rewards.max_unfinished_groups are out.

        Args:
            deadline_s: for that wait.

        Returns:
            ObjectRef[ScoredGroup | RolloutFailure]. Getting it raises what `RewardSuite.score_group` or the
            generating task raised.

        Raises:
            RewardError: the pool is closed, or no group was finished in the deadline.
        """
        if not self._is_open:
            raise RewardError("this reward pool is closed", cure="make a new RewardPool")
        self._wait_for_room(deadline_s)
        loads = Counter(id(worker) for worker in self._unfinished.values())
        worker = min(self._workers, key=lambda worker: loads[id(worker)])
        scored = worker.actor.score.remote(group)
        self._unfinished[scored] = worker
        return scored

    def cancel(self, ref: ObjectRef) -> None:
        """Stop scoring the group of this reference, and its questions to judges. Getting it then raises
        ray.exceptions.TaskCancelledError; nothing happens where it is done."""
        ray.cancel(ref)

    def drain(self, deadline_s: float) -> None:
        """Take no more groups, finish those that are out, and close. Their references stay good.

        Raises:
            RewardError: some were not finished in the deadline; they are lost.
        """
        self._is_open = False
        self._forget_finished(deadline_s)
        self.close()
        if self._unfinished:
            raise RewardError(
                f"{len(self._unfinished)} groups were not scored within {deadline_s:g} s of draining the reward pool"
            )

    def _wait_for_room(self, deadline_s: float) -> None:
        until = time.monotonic() + deadline_s
        self._forget_finished(0)
        while (num_out := len(self._unfinished)) >= self._max_unfinished:
            self._forget_finished(max(0.0, until - time.monotonic()), wanted=1)
            if len(self._unfinished) == num_out:
                raise RewardError(
                    f"no group was scored within {deadline_s:g} s while {num_out} were out",
                    where=f"rewards.max_unfinished_groups={self._max_unfinished}",
                    cure="look into the judge's server, or lower rewards.rollout_deadline_s",
                )

    def _forget_finished(self, timeout_s: float, wanted: int | None = None) -> None:
        """Wait until so many groups are scored (None: all), but no longer than the time-out."""
        refs = list(self._unfinished)
        if refs:
            done, _ = ray.wait(refs, num_returns=wanted or len(refs), timeout=timeout_s, fetch_local=False)
            for ref in done:
                del self._unfinished[ref]

    def close(self) -> None:
        """Stop the actors; groups not yet scored are lost. Closing twice is harmless."""
        self._is_open = False
        for worker in self._workers:
            ray.kill(worker.actor, no_restart=True)
        if self.limiter is not None:
            ray.kill(self.limiter, no_restart=True)
        self._workers, self.limiter = [], None


def _start_limiter(rewards: RewardsSection) -> Any | None:
    """The actor that all reward actors ask before each request; None where no judge has a rate."""
    judges = all_judges(rewards)
    if not any(judge.requests_per_minute or judge.tokens_per_minute for judge in judges.values()):
        return None
    # It holds nothing but a rate, so it may restart and be asked again for as long as the run lasts.
    return ray.remote(LocalLimiter).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(judges)


def _share_of_judge(rewards: RewardsSection, num_workers: int) -> RewardsSection:
    """Settings of one actor: a judge's concurrency is a limit for the pool, so each actor gets its part."""

    def share(judge: JudgeSection) -> JudgeSection:
        return judge.model_copy(update={"concurrency": max(1, judge.concurrency // num_workers)})

    panel = tuple(share(judge) for judge in rewards.panel)
    held_out = rewards.monitors.held_out_judge
    monitors = rewards.monitors.model_copy(update={"held_out_judge": share(held_out) if held_out else None})
    return rewards.model_copy(update={"judge": share(rewards.judge), "panel": panel, "monitors": monitors})
