"""A checkpoint's shards, of every ZeRO stage and from two ranks, become the weights that were trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ray import cloudpickle
from safetensors.torch import load_file

from owlcap.config import ClusterSection, DeepSpeedSection, ModelSection, OptimizerSection, VideoSection
from owlcap.errors import CheckpointError, ExportError
from owlcap.export.checkpoint import consolidate
from owlcap.models.tiny import make_tiny_model
from owlcap.training.checkpoint import CheckpointMeta, CheckpointStore, DataCursor
from owlcap.training.group import WorkerGroup, gather, make_worker_group, stop_worker_group
from owlcap.training.worker import ONE_TO_ALL, TrainingSpec, TrainingWorker, WorkerReport, register

pytestmark = pytest.mark.slow
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # ranks cannot import test modules

DEADLINE_S = 300.0  # only so that a fault fails the test instead of hanging it
TEXTS = ["A person in a red shirt raises the left arm.", "Describe the video."]


class Engines(TrainingWorker):
    """Builds engines with any settings around the same weights."""

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def make(self, stage: int, dtype: str) -> WorkerReport:
        model = self.spec.model.model_copy(update={"dtype": dtype})
        deepspeed = DeepSpeedSection.model_validate({"zero_stage": stage})
        self.spec = replace(self.spec, model=model, deepspeed=deepspeed)
        return self.build_engine(self.load_model())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in the engines, tied, so that one of them is stored under two names."""
    return make_tiny_model(tmp_path_factory.mktemp("trained"), TEXTS, seed=1, tied=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights: what a run starts from."""
    return make_tiny_model(tmp_path_factory.mktemp("base"), TEXTS, seed=2, tied=True)


@pytest.fixture(scope="module")
def ranks(ray_cluster: None, trained: Path) -> Iterator[WorkerGroup]:
    model = ModelSection(path=str(trained), dtype="fp32", freeze_vision=True)
    spec = TrainingSpec(model, VideoSection(), OptimizerSection(lr=1e-3), DeepSpeedSection(), total_steps=8, seed=0)
    group = make_worker_group(Engines, (spec,), ClusterSection(cpus_per_learner=0.5, learner_ranks=2))
    yield group
    stop_worker_group(group)


def save(ranks: WorkerGroup, stage: int, dtype: str, root: Path) -> Path:
    """A checkpoint as a run writes it."""
    report = gather(ranks.make(stage, dtype), DEADLINE_S, "making an engine")[0]
    meta = CheckpointMeta(7, DataCursor(), report.layout)
    return CheckpointStore(root, keep=1).write(
        meta, lambda folder: gather(ranks.save(str(folder)), DEADLINE_S, "saving")
    )


@pytest.mark.parametrize(("stage", "dtype"), [(0, "fp32"), (2, "fp32"), (3, "fp32"), (0, "bf16"), (2, "bf16")])
def test_every_weight_comes_from_the_checkpoint(
    ranks: WorkerGroup, trained: Path, base: Path, tmp_path: Path, stage: int, dtype: str
) -> None:
    checkpoint = save(ranks, stage, dtype, tmp_path / "checkpoints")
    folder = consolidate(checkpoint, str(base), "fp32" if dtype == "fp32" else "bf16", tmp_path / "model")
    written, wanted = load_file(folder / "model.safetensors"), load_file(trained / "model.safetensors")
    assert written.keys() == wanted.keys()
    for name, weight in wanted.items():
        kept = weight if dtype == "fp32" else weight.to(torch.bfloat16)
        np.testing.assert_array_equal(written[name].float().numpy(), kept.float().numpy(), err_msg=name)
    assert (folder / "tokenizer.json").is_file()


def test_a_base_model_of_another_shape_is_refused(ranks: WorkerGroup, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", [*TEXTS, "Words that make the vocabulary larger."], seed=2, tied=True)
    checkpoint = save(ranks, 2, "fp32", tmp_path / "checkpoints")
    with pytest.raises(ExportError, match=r"embed_tokens.weight is \[\d+, 128\] in the checkpoint and \[\d+, 128\]"):
        consolidate(checkpoint, str(other), "fp32", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_half_written_checkpoint_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "step-00000001" / "engine").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be read"):
        consolidate(tmp_path / "step-00000001", str(base), "fp32", tmp_path / "model")
