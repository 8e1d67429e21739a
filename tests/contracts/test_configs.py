"""Every file in configs/ is a run (or a base of one), and says what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.config import RlRun, Run, SftRun
from owlcap.config_io import dump, load_run
from rl.placement import plan
from rl.reference import Reference, reference_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RUNS = sorted(CONFIGS.glob("*.yaml"))
GPUS_PER_NODE = 8


def gpus(run: Run) -> int:
    """GPUs that the run's own actors ask for; judges are servers of their own."""
    cluster = run.cluster
    rollout = cluster.rollout_workers * cluster.gpus_per_rollout if isinstance(run, RlRun) else 0
    return cluster.learner_ranks * cluster.gpus_per_learner + rollout


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_loads_dumps_and_is_the_kind_its_name_says(path: Path, tmp_path: Path) -> None:
    run = load_run(path)
    assert isinstance(run, SftRun if "_sft" in path.stem else RlRun)
    copy = tmp_path / "config.yaml"
    copy.write_text(dump(run), encoding="utf-8")
    assert load_run(copy) == run


def test_the_bases_are_all_extended_by_a_run() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in RUNS)
    assert [base.name for base in (CONFIGS / "base").glob("*.yaml") if f"extends: base/{base.name}" not in texts] == []


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_asks_for_what_its_nodes_have(path: Path) -> None:
    run = load_run(path)
    if path.stem.startswith("toy"):
        assert gpus(run) == 0
    else:
        assert 0 < gpus(run) <= run.cluster.num_nodes * GPUS_PER_NODE
        assert ("multinode" in path.stem) == (run.cluster.num_nodes > 1)


@pytest.mark.parametrize("family", ["toy", "toy_macm", "qwen2_5_vl_7b", "qwen2_5_vl_7b_macm"])
def test_grpo_starts_from_the_model_that_sft_writes(family: str) -> None:
    sft, grpo = load_run(f"{family}_sft"), load_run(f"{family}_grpo")
    assert grpo.model.path == f"{sft.run_dir}/{sft.name}/model"
    assert grpo.video == sft.video
    assert grpo.motion == sft.motion


def test_the_7b_grpo_run_has_the_papers_numbers() -> None:
    run = load_run("qwen2_5_vl_7b_grpo")
    assert isinstance(run, RlRun)
    assert (run.rollout.group_size, run.rollout.temperature, run.rollout.max_new_tokens) == (8, 1.0, 1024)
    assert (run.rollout.prompts_per_step, run.num_epochs, run.checkpoint.every_steps) == (2, 1, 50)
    assert (run.optimizer.lr, run.algorithm.kl_beta, run.algorithm.kl_estimator) == (1e-6, 0.04, "k3")
    assert (run.deepspeed.zero_stage, run.deepspeed.offload_optimizer, run.deepspeed.offload_params) == (3, True, True)
    assert (run.model.dtype, run.model.gradient_checkpointing, run.model.freeze_vision) == ("bf16", True, False)
    assert (run.video.fps, run.video.min_frames, run.video.max_frames) == (2.0, 16, 768)
    assert run.video.total_pixels == 3584 * 28 * 28
    assert run.data.max_prompt_tokens == 8192
    assert [(term.name, term.weight) for term in run.rewards.terms] == [("cser", 1.0), ("length", 1.0)]
    judge = run.rewards.judge
    assert (judge.kind, judge.model, judge.temperature, judge.max_tokens) == ("openai", "Qwen/Qwen3-32B", 0.7, 8192)
    assert (run.rewards.cser.match, run.rewards.cser.combine) == ("lenient", "sum")


def test_the_lora_run_trains_adapters_alone_and_needs_no_second_model() -> None:
    run = load_run("qwen2_5_vl_7b_grpo_lora")
    assert isinstance(run, RlRun)
    assert run.model.lora is not None
    assert (run.model.freeze_vision, run.model.freeze_projector, run.motion.enabled) == (True, True, False)
    assert run.algorithm.kl_beta > 0
    assert reference_of(run.model, run.motion, run.algorithm.kl_beta, run.reference_model) is Reference.POLICY
    assert "LoRA of rank 32, reference: the policy without its adapters" in plan(run).actors[0].does
