"""The learner as the driver sees it: one object whose methods run on all ranks under deadlines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ClusterSection, RlRun
from owlcap.logging import get_logger
from owlcap.training.buckets import WeightBucket, WeightDigest
from owlcap.training.checkpoint import Layout, check_layout, load_meta
from owlcap.training.features import located
from owlcap.training.group import LearnerLostError, gather, make_worker_group, stop_worker_group
from owlcap.training.worker import TrainingSpec, WorkerReport
from owlcap.types import LearnerGroup
from rl.batching import GroupSize, MiniBatch, plan_update
from rl.learner import LearnerWorker, LearningSpec, RankMiniBatch, RankWork
from rl.stats import LearnerStats, merge
from rl.weight_sync import DirectWeights, WeightBuckets
from rollout.transfer import EngineActors

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

logger = get_logger(__name__)
UPDATE_DEADLINE_S = 3600.0  # of one step's update, and of gathering or writing the whole state


class LearnerClient:
    """The learner ranks of a run. Placed when made, ready when `start` has returned.

    Raises:
        PlacementError: the cluster cannot place the ranks in time.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        learning: LearningSpec,
        cluster: ClusterSection,
        shared: PlacementGroup | None = None,
    ) -> None:
        self._spec, self._learning, self._cluster, self._shared = spec, learning, cluster, shared
        self._layout: Layout | None = None
        self._launch()

    @classmethod
    def from_run(cls, cfg: RlRun, num_steps: int, shared: PlacementGroup | None = None) -> LearnerClient:
        """The learner that an RL run's configuration describes, for a run of `num_steps` steps.

        Args:
            shared: bundles whose GPUs the engines use too: see owlcap.training.cluster.
        """
        algorithm = cfg.algorithm.settled(cfg.pipeline.mode)
        spec = TrainingSpec(
            model=cfg.model,
            video=cfg.video,
            optimizer=cfg.optimizer,
            deepspeed=cfg.deepspeed,
            total_steps=num_steps * algorithm.num_epochs * algorithm.num_minibatches,
            seed=cfg.seed,
            threads=cfg.cluster.threads_per_actor,
            features=located(cfg),
            motion=cfg.motion,
        )
        learning = LearningSpec(
            algorithm=algorithm,
            temperature=cfg.rollout.temperature,
            max_new_tokens=cfg.rollout.max_new_tokens,
            reference_model=cfg.reference_model or cfg.model.path,
        )
        return cls(spec, learning, cfg.cluster.settled(cfg.pipeline.mode), shared)

    def wait_started(self, *, again: bool = False) -> WorkerReport:
        """Wait for the models to be loaded; rank 0's report.

        Args:
            again: start all ranks once more if one is lost; a second loss is no accident.

        Raises:
            ModelError: a checkpoint cannot be used.
            TrainingError: a rank died, or `start_deadline_s` passed.
        """
        try:
            reports: list[WorkerReport] = gather(self._starting, self._cluster.start_deadline_s, "loading the policy")
        except LearnerLostError as error:
            if not again:
                raise
            logger.warning("the learner starts again: %s", error)
            self.close()
            self._launch()
            return self.wait_started()
        self._layout = reports[0].layout
        return reports[0]

    def restart(self) -> None:
        """End all ranks, whatever is left of them, and start them again with the weights of model.path.

        Raises:
            PlacementError, ModelError, TrainingError: as at the first start.
        """
        self.close()
        self._launch()
        self.wait_started()

    @property
    def layout(self) -> Layout:
        """What a checkpoint must match."""
        assert self._layout is not None, "wait_started first"
        return self._layout

    def update(self, groups: Sequence[LearnerGroup], num_prompt_tokens: Sequence[int]) -> LearnerStats:
        """One step's optimizer updates.

        Args:
            groups: in the order of the step's prompts; each with at least one completion.
            num_prompt_tokens: of each group's prompt.

        Raises:
            TrainingError: a rank died, the deadline passed, or too many updates in a row were not finite.
        """
        algorithm = self._learning.algorithm
        sizes = [
            GroupSize(tokens, tuple(len(completion) for completion in group.completions))
            for group, tokens in zip(groups, num_prompt_tokens, strict=True)
        ]
        minibatches = plan_update(
            sizes,
            num_ranks=self._cluster.learner_ranks,
            num_minibatches=algorithm.num_minibatches,
            tokens_per_micro_batch=algorithm.tokens_per_micro_batch,
        )
        work = [_rank_work(rank, groups, minibatches) for rank in range(self._cluster.learner_ranks)]
        return merge(gather(self._group.update(work), UPDATE_DEADLINE_S, "updating the policy"))  # type: ignore[attr-defined]

    def weights(self) -> WeightBuckets | DirectWeights:
        """The present weights, on their way to the engines as cluster.weight_transfer says."""
        if self._cluster.weight_transfer == "nccl":
            return DirectWeights(self._send, self.buckets)
        return self.buckets()

    def buckets(self) -> WeightBuckets:
        """The present weights in the object store, owned by this process and with a copy on its node: an engine that
        is replaced can load them whichever rank or node is lost.
        """
        started, doing = time.perf_counter(), "gathering the weights"
        streams = [worker.weights.remote() for worker in self._group.workers]
        gather([stream.completed() for stream in streams], UPDATE_DEADLINE_S, doing)
        refs = tuple(streams[0])
        buckets: list[WeightBucket] = gather(refs, UPDATE_DEADLINE_S, doing)
        num_bytes = sum(bucket.num_bytes for bucket in buckets)
        return WeightBuckets(refs, num_bytes, time.perf_counter() - started)

    def save(self, folder: Path) -> None:
        """Write all ranks' state into a checkpoint folder that is being filled."""
        gather(self._group.save(str(folder)), UPDATE_DEADLINE_S, "writing a checkpoint")  # type: ignore[attr-defined]

    def load(self, folder: Path) -> None:
        """Restore all ranks' state.

        Raises:
            CheckpointError: the checkpoint belongs to another model or set-up.
        """
        check_layout(folder, load_meta(folder).layout, self.layout)
        gather(self._group.load(str(folder)), UPDATE_DEADLINE_S, "loading a checkpoint")  # type: ignore[attr-defined]

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder."""
        gather(self._group.export(str(folder)), UPDATE_DEADLINE_S, "exporting the policy")  # type: ignore[attr-defined]

    def rest(self) -> None:
        """Leave the GPUs' memory to the engines, as far as DeepSpeed can."""
        gather(self._group.rest(), UPDATE_DEADLINE_S, "giving up GPU memory")  # type: ignore[attr-defined]

    def wake(self) -> None:
        """Take it back: before any other call but `close`."""
        gather(self._group.wake(), UPDATE_DEADLINE_S, "taking back GPU memory")  # type: ignore[attr-defined]

    def close(self) -> None:
        """End all ranks."""
        stop_worker_group(self._group)

    def _send(self, engines: EngineActors) -> WeightDigest:
        """Have the ranks send their weights to these engines; what rank 0 sent."""
        deadline_s = self._cluster.sync_deadline_s
        return gather(self._group.send_weights(engines, deadline_s), deadline_s, "sending the weights")[0]  # type: ignore[attr-defined]

    def _launch(self) -> None:
        self._group = make_worker_group(LearnerWorker, (self._spec, self._learning), self._cluster, shared=self._shared)
        self._starting = self._group.start()  # type: ignore[attr-defined]  # methods that verl binds from the class


def _rank_work(rank: int, groups: Sequence[LearnerGroup], minibatches: Sequence[MiniBatch]) -> RankWork:
    """One rank's part of the plan, with only the groups that it needs."""
    parts = tuple(RankMiniBatch(mini.size, mini.ranks[rank]) for mini in minibatches)
    needed = {piece.group for part in parts for micro in part.micro_batches for piece in micro.pieces}
    return RankWork({g: groups[g] for g in sorted(needed)}, parts)
