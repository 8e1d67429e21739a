"""Overlays made while training: motion actors work on the next prompts while engines and learner have these.

    prompts without overlays ──> motion actors ──> cache on disk ──> prompts with overlays ──> rollout engines
                                 (a step ahead)                                                └─> learner, by Prompt

Rows that bring overlays pass by. The cache must lie where every node can read it (motion.extract.cache).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from motion.actor import MotionActor, plug_ins
from motion.extract import Extracted, MotionResult
from owlcap.config import RlRun
from owlcap.errors import RolloutError
from owlcap.logging import get_logger
from owlcap.types import RolloutFailure, RolloutGroup, Sample
from rollout.settings import GenerationRequest

if TYPE_CHECKING:
    from rl.collect import GroupSource

logger = get_logger(__name__)
RESTARTS = 3  # of one actor; what it had done is in the cache


@dataclass(frozen=True, slots=True)
class _Asked:
    """A clip's place in an actor's answer."""

    answer: Any  # ObjectRef[list[MotionResult]]
    place: int


class OverlayActors:
    """The run's motion actors (`cluster.motion_actors`). Used from the driver's thread and the engines' thread."""

    def __init__(self, cfg: RlRun) -> None:
        self._motion, self._deadline_s = cfg.motion, cfg.rollout.group_deadline_s
        cluster = cfg.cluster
        made = ray.remote(MotionActor).options(
            num_cpus=cluster.cpus_per_motion,
            num_gpus=cluster.gpus_per_motion,
            max_restarts=RESTARTS,
            max_task_retries=-1,
        )
        arguments = (cfg.motion, plug_ins(cfg.motion))
        self._actors = [made.remote(*arguments) for _ in range(cluster.motion_actors)]
        self._asked: dict[str, _Asked] = {}  # by sample id
        self._turn = 0

    def __enter__(self) -> OverlayActors:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)  # type: ignore[arg-type]

    def before(self, engines: GroupSource) -> WithOverlays:
        """The engines as a source of captions for clips without overlays."""
        return WithOverlays(engines, self)

    def begin(self, samples: Sequence[Sample]) -> None:
        """Let the actors make the overlays of those samples that have none and were not asked for yet."""
        wanted = [one for one in samples if not one.overlays and one.id not in self._asked]
        size = self._motion.extract.clips_at_once
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            actor = self._actors[self._turn % len(self._actors)]
            self._turn += 1
            answer = actor.extract.remote(part)
            self._asked |= {sample.id: _Asked(answer, place) for place, sample in enumerate(part)}

    def take(self, sample: Sample) -> Sample | RolloutFailure:
        """The sample with its overlays, after `begin`. A clip that gives none is a failure, unless `motion.missing` is
        visual: then it comes back as it is.

        Raises:
            RolloutError: the actors do not answer, or died again and again.
        """
        if sample.overlays:
            return sample
        asked = self._asked.pop(sample.id)
        try:
            result: MotionResult = ray.get(asked.answer, timeout=self._deadline_s)[asked.place]
        except (GetTimeoutError, RayActorError) as error:
            raise RolloutError(
                f"the motion actors made no overlays: {type(error).__name__}",
                where=sample.id,
                allowed=f"an answer within rollout.group_deadline_s ({self._deadline_s:g} s)",
                cure="see the motion actors' logs; make the overlays before the run with `owlcap motion extract`",
            ) from error
        if isinstance(result, Extracted):
            return replace(sample, overlays=tuple(map(str, result.overlays)))
        if self._motion.missing == "visual":
            logger.warning("%s is shown as its video alone: %s", sample.id, result.reason)
            return sample
        return RolloutFailure(sample, result.error, result.reason)


@dataclass(frozen=True, slots=True)
class WithOverlays:
    """Rollout engines behind motion actors."""

    engines: GroupSource
    overlays: OverlayActors

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """One result a request, as they finish."""
        self.overlays.begin([request.sample for request in requests])
        ready: list[GenerationRequest] = []
        for request in requests:
            sample = self.overlays.take(request.sample)
            if isinstance(sample, RolloutFailure):
                yield sample
            else:
                ready.append(replace(request, sample=sample))
        yield from self.engines.generate(ready)
