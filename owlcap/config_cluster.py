"""The schema of what a run's actors ask of the cluster; a part of owlcap.config, which hands it on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from owlcap.config_rewards import Section


class ClusterSection(Section):
    """What each Ray actor asks for. `ray_address: null` starts Ray on this machine."""

    ray_address: str | None = None
    num_nodes: int = Field(default=1, gt=0)
    cpus_per_node: int | None = Field(default=None, gt=0)  # for the plan of a cluster that is not joined yet
    gpus_per_node: int | None = Field(default=None, ge=0)  # the same; null: not known
    learner_ranks: int = Field(default=1, gt=0)
    gpus_per_learner: int = Field(default=0, ge=0, le=1)  # a rank drives one GPU; 0: the CPU
    cpus_per_learner: float = Field(default=1.0, gt=0)
    rollout_workers: int = Field(default=1, gt=0)
    tensor_parallel: int = Field(default=1, gt=0)  # GPUs of one rollout engine
    gpus_per_rollout: int = Field(default=0, ge=0)  # 0 = the CPU engine
    cpus_per_rollout: float = Field(default=1.0, gt=0)
    colocate: bool = False  # each learner rank shares its GPU with an engine; one of them is always put away
    weight_transfer: Literal["auto", "shared_memory", "nccl"] = "auto"  # to the engines: docs/pipeline.md
    reward_workers: int = Field(default=1, gt=0)
    cpus_per_reward: float = Field(default=0.1, gt=0)
    judge_servers: int = Field(default=0, ge=0)  # run beside Ray on these machines, by you; 0: elsewhere, or none
    gpus_per_judge: int = Field(default=0, ge=0)
    cpus_per_judge: float = Field(default=1.0, gt=0)
    motion_actors: int = Field(default=0, ge=0)  # that draw the motion pathway's overlays; 0: rows bring them
    gpus_per_motion: float = Field(default=0.0, ge=0)  # below 1: several actors share a GPU
    cpus_per_motion: float = Field(default=1.0, gt=0)
    threads_per_actor: int = Field(default=1, gt=0)  # OMP threads on CPU
    placement_deadline_s: float = Field(default=300.0, gt=0)
    start_deadline_s: float = Field(default=900.0, gt=0)  # engines and models loaded
    sync_deadline_s: float = Field(default=300.0, gt=0)  # new weights loaded by every rollout engine
    max_learner_restarts: int = Field(default=3, ge=0)  # lost ranks: all are started again, from the last checkpoint

    @model_validator(mode="after")
    def _engine_gpus(self) -> ClusterSection:
        if self.gpus_per_rollout not in (0, self.tensor_parallel):
            raise ValueError(
                f"gpus_per_rollout is {self.gpus_per_rollout}; it is 0 (CPU) or equal to tensor_parallel "
                f"({self.tensor_parallel})"
            )
        if 1 < self.gpus_per_motion != int(self.gpus_per_motion):
            raise ValueError(f"gpus_per_motion is {self.gpus_per_motion:g}; it is a part of one GPU or a whole number")
        return self

    @model_validator(mode="after")
    def _shared_gpus(self) -> ClusterSection:
        if not self.colocate:
            return self
        if not (self.gpus_per_learner and self.gpus_per_rollout):
            raise ValueError(
                "colocate needs gpus_per_learner=1 and gpus_per_rollout=1: on a CPU there are no GPUs to share, and "
                "vLLM's engine cannot sleep; set colocate=false"
            )
        if self.tensor_parallel > 1 or self.rollout_workers != self.learner_ranks:
            raise ValueError(
                "colocate puts one engine beside each learner rank: set tensor_parallel=1 "
                f"(it is {self.tensor_parallel}) and rollout_workers={self.learner_ranks} "
                f"(it is {self.rollout_workers})"
            )
        return self

    @model_validator(mode="after")
    def _nccl_needs_gpus_apart(self) -> ClusterSection:
        if self.weight_transfer == "nccl" and not self._can_use_nccl:
            raise ValueError(
                "weight_transfer=nccl sends between GPUs that learner and engines do not share (gpus_per_learner=1, "
                f"gpus_per_rollout=tensor_parallel, colocate=false); here gpus_per_learner is {self.gpus_per_learner}, "
                f"gpus_per_rollout {self.gpus_per_rollout}, colocate {str(self.colocate).lower()}: set "
                "weight_transfer=auto or shared_memory"
            )
        return self

    @property
    def _can_use_nccl(self) -> bool:
        return bool(self.gpus_per_learner and self.gpus_per_rollout) and not self.colocate

    def settled(self, mode: str) -> ClusterSection:
        """With weight_transfer "auto" replaced by what it means in that pipeline.mode."""
        if self.weight_transfer != "auto":
            return self
        transfer = "nccl" if self._can_use_nccl and mode != "async" else "shared_memory"
        return self.model_copy(update={"weight_transfer": transfer})
