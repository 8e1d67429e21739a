"""Supervised fine-tuning end to end on two ranks: it learns, it survives a crash, it leaves out what it cannot read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from owlcap.config import (
    CheckpointSection,
    ClusterSection,
    DataSection,
    DeepSpeedSection,
    LoraSection,
    ModelSection,
    OptimizerSection,
    SftRun,
    SftSection,
    VideoSection,
)
from owlcap.errors import CheckpointError
from owlcap.metrics import MetricsWriter
from owlcap.models.load import load_policy, load_processor
from owlcap.runs import RunDir
from sft.train import run_sft

pytestmark = pytest.mark.slow

NUM_CLIPS, BATCH_SIZE = 22, 8  # three steps an epoch, the last one smaller
CAPTIONS = ("A person in a red shirt raises the left arm.", "Someone wearing green walks to the right and jumps.")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy_clips: tuple[Path, ...]) -> DataSection:
    """Rows that share four clips."""
    folder = tmp_path_factory.mktemp("sft_data")
    train = [row(f"train-{i}", toy_clips[i % 4], CAPTIONS[i % 2]) for i in range(NUM_CLIPS)]
    validation = [row(f"validation-{i}", toy_clips[i], CAPTIONS[i % 2]) for i in range(3)]
    for name, rows in (("train", train), ("validation", validation)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return DataSection(train=str(folder / "train.jsonl"), validation=str(folder / "validation.jsonl"))


def row(id: str, video: Path, caption: str) -> dict[str, object]:
    question = {"role": "user", "content": "Describe the video.<video>"}
    return {"id": id, "messages": [question, {"role": "assistant", "content": caption}], "videos": [str(video)]}


def settings(name: str, run_dir: Path, policy: Path, data: DataSection) -> SftRun:
    return SftRun(
        name=name,
        seed=3,
        run_dir=str(run_dir),
        model=ModelSection(path=str(policy), dtype="fp32", freeze_projector=True),
        video=VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136, total_pixels=50_000),
        data=data,
        optimizer=OptimizerSection(lr=3e-3, warmup_ratio=0.1),
        deepspeed=DeepSpeedSection(zero_stage=2),
        cluster=ClusterSection(learner_ranks=2, cpus_per_learner=0.5),
        checkpoint=CheckpointSection(every_steps=3),
        sft=SftSection(num_epochs=2, batch_size=BATCH_SIZE, tokens_per_micro_batch=120, validate_every_steps=3),
    )


def curve(run: Path, name: str = "train/loss") -> Mapping[int, float]:
    """A metric by step; a step written twice would be a fault."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in rows if name in r]
    assert len(steps) == len(set(steps))
    return {r["step"]: r[name] for r in rows if name in r}


@pytest.fixture(scope="module")
def whole(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, tiny_policy: Path, data: DataSection) -> Path:
    """A run that was not interrupted."""
    cfg = settings("whole", tmp_path_factory.mktemp("whole"), tiny_policy, data)
    assert run_sft(cfg) == Path(cfg.run_dir) / "whole" / "model"
    return Path(cfg.run_dir) / "whole"


def test_the_policy_learns(whole: Path) -> None:
    losses = curve(whole)
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses[6] < losses[1] - 0.5
    validation = curve(whole, "validation/loss")
    assert list(validation) == [0, 3, 6]
    assert validation[6] < validation[0] - 0.5
    assert sum(curve(whole, "train/sequences").values()) == 2 * NUM_CLIPS


def test_the_export_is_a_policy(whole: Path, tiny_policy: Path) -> None:
    model = load_policy(ModelSection(path=str(whole / "model"), dtype="fp32"))
    before = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32"))
    load_processor(whole / "model")
    assert not model.lm_head.weight.equal(before.lm_head.weight)
    assert model.model.visual.merger.mlp[0].weight.equal(before.model.visual.merger.mlp[0].weight)


def test_features_are_computed_once_for_each_clip(whole: Path) -> None:
    assert len(list((whole.parent / "features").iterdir())) == 4  # 25 rows show four clips


def test_a_run_that_crashed_at_the_end_of_an_epoch_goes_on_bit_for_bit(
    whole: Path, tmp_path: Path, tiny_policy: Path, data: DataSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = settings("crashed", tmp_path, tiny_policy, data)
    log = MetricsWriter.log

    def crash(self: MetricsWriter, step: int, values: Mapping[str, float], prefix: str = "train") -> None:
        log(self, step, values, prefix)
        if step == 4:
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "log", crash)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            run_sft(cfg)
    run = tmp_path / "crashed"
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (run / "model").exists()

    other = cfg.model_copy(update={"deepspeed": DeepSpeedSection(zero_stage=1)})
    with pytest.raises(CheckpointError, match=r"deepspeed\.zero_stage: checkpoint 2, run 1"):
        run_sft(other, resume=True)

    run_sft(cfg, resume=True)
    assert curve(run) == curve(whole)
    assert curve(run, "validation/loss") == curve(whole, "validation/loss")
    weights, expected = (load_file(path / "model" / "model.safetensors") for path in (run, whole))
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_an_unreadable_clip_is_left_out_and_counted_and_lora_trains_beside_the_projector(
    ray_cluster: None, tmp_path: Path, tiny_policy: Path, data: DataSection
) -> None:
    lines = Path(data.train).read_text().splitlines()
    (tmp_path / "empty.mp4").write_bytes(b"")
    bad = [json.dumps(row(f"bad-{i}", tmp_path / name, "x")) for i, name in enumerate(("missing.mp4", "empty.mp4"))]
    (tmp_path / "train.jsonl").write_text("\n".join(lines + bad))
    cfg = settings("bad", tmp_path, tiny_policy, DataSection(train=str(tmp_path / "train.jsonl"), validation=None))
    # The projector trains: clips are decoded in each step, and the vision tower runs in it. So do adapters.
    cfg = cfg.model_copy(
        update={
            "model": cfg.model.model_copy(
                update={"freeze_projector": False, "dtype": "bf16", "lora": LoraSection(rank=4)}
            ),
            "deepspeed": DeepSpeedSection(zero_stage=3),
            "data": cfg.data.model_copy(update={"max_bad_rows_share": 0.1}),
            "sft": cfg.sft.model_copy(update={"num_epochs": 1}),
        }
    )
    model = load_file(run_sft(cfg) / "model.safetensors")
    base = load_file(tiny_policy / "model.safetensors")
    assert model.keys() == base.keys()  # a plain model, the adapters merged
    moved = {name for name, weight in model.items() if not weight.equal(base[name].bfloat16())}
    assert any("layers" in name for name in moved)
    assert all("_proj." in name or "visual.merger" in name for name in moved)
    losses = curve(tmp_path / "bad")
    assert losses[3] < losses[1]
    assert curve(tmp_path / "bad", "train/unusable_clips")[3] == 2
    assert sum(curve(tmp_path / "bad", "train/sequences").values()) == NUM_CLIPS
    log = (RunDir(tmp_path / "bad").logs / "driver.log").read_text()
    assert "left out bad-0" in log
    assert "left out bad-1" in log
