"""The plan: actors, work, judge calls, and refusal before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.config import RlRun
from owlcap.errors import ConfigError, PlacementError
from rl.nodes import ActorPlan, Node, Share, lay_out
from rl.placement import Resources, evaluates_at, plan, render_plan


def machine(cpus: float, gpus: int = 0) -> Resources:
    return Resources((Node("this machine", cpus, gpus),), what="this machine")


def cluster(*nodes: tuple[float, int]) -> Resources:
    return Resources(tuple(Node(f"n{i}", *node) for i, node in enumerate(nodes)), what="the Ray cluster")


TWO_CORES = machine(2)


def data_at(path: str | Path) -> dict[str, object]:
    return {"train": str(path), "max_prompt_tokens": 100}


def rl_run(**changes: object) -> RlRun:
    settings: dict[str, object] = {
        "name": "toy",
        "model": {"path": "model"},
        "data": data_at("missing.jsonl"),
        "optimizer": {"lr": 1e-3},
        "algorithm": {},
        "num_steps": 10,
        "cluster": {"learner_ranks": 2, "cpus_per_learner": 0.5, "rollout_workers": 2, "cpus_per_rollout": 0.4},
        "rollout": {"group_size": 4, "prompts_per_step": 6, "max_new_tokens": 20, "max_model_len": 200},
    }
    return RlRun.model_validate(settings | changes)


def with_judge(**changes: object) -> RlRun:
    return rl_run(rewards={"judge": {"kind": "openai"}, "cser": {"mode": "joint"}}, **changes)


def test_resources_and_work_add_up() -> None:
    p = plan(rl_run(), TWO_CORES)
    assert p.cpus == pytest.approx(2 * 0.5 + 2 * 0.4 + 0.1)
    assert p.gpus == 0
    assert p.sequences_per_step == 24
    assert p.sampled_tokens_per_step == 480
    assert p.learner_tokens_per_step == 6 * 100 + 480
    assert p.judge_calls == 0
    p.check()


def test_judge_calls_count_rollouts_and_evaluations() -> None:
    evaluation = {"data": "test.jsonl", "every_steps": 4, "num_clips": 30, "sampled": True}
    p = plan(with_judge(evaluation=evaluation), TWO_CORES)
    assert p.judge_calls_per_step == 24
    # after 0, 4, 8 and 10 updates: 30 clips greedy and 30 sampled each
    assert p.num_evaluations == 4
    assert p.judge_calls == 10 * 24 + 4 * 60


def test_staged_judging_asks_three_times_a_caption_and_once_a_reference() -> None:
    judge = {"kind": "openai"}
    p = plan(rl_run(rewards={"judge": judge, "panel": [judge]}), TWO_CORES)
    assert p.judge_calls_per_step == p.prompts_per_step + (1 + 2 * 2) * p.sequences_per_step


def test_evaluations_come_at_the_start_at_intervals_and_at_the_end() -> None:
    cfg = rl_run(evaluation={"data": "test.jsonl", "every_steps": 4})
    assert [step for step in range(11) if evaluates_at(cfg, step, 10)] == [0, 4, 8, 10]
    assert not any(evaluates_at(rl_run(), step, 10) for step in range(11))


def test_epochs_are_counted_from_the_data(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n" * 20)
    assert plan(rl_run(num_steps=None, num_epochs=2, data=data_at(data)), TWO_CORES).num_steps == 6


def test_a_step_that_takes_more_prompts_than_there_are_is_refused(tmp_path: Path) -> None:
    rows = tmp_path / "train.jsonl"
    rows.write_text("{}\n" * 5)
    with pytest.raises(ConfigError, match="one step takes 6 prompts, the training data has 5 rows"):
        plan(rl_run(data=data_at(rows)), TWO_CORES)


def test_files_that_are_not_there_are_told() -> None:
    said = " ".join(
        render_plan(
            rl_run(model={"path": "missing/model/folder"}, evaluation={"data": "test.jsonl"}), TWO_CORES
        ).split()
    )
    assert "data.train (missing.jsonl) is not there yet" in said
    assert "evaluation.data (test.jsonl) is not there yet" in said
    assert "model.path (missing/model/folder) is not there yet" in said


def test_gpus_that_are_not_there_are_refused() -> None:
    asked = {"gpus_per_learner": 1, "learner_ranks": 2, "rollout_workers": 2, "gpus_per_rollout": 1}
    p = plan(rl_run(cluster=asked), machine(64, 3))
    assert p.gpus == 4
    with pytest.raises(PlacementError, match="4 GPUs asked for, 3 there") as caught:
        p.check()
    assert "2 x learner" in str(caught.value)


def test_cpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"1\.9 CPUs asked for, 1 there"):
        plan(rl_run(), machine(1)).check()


def test_a_cluster_not_joined_yet_is_not_judged() -> None:
    p = plan(rl_run(cluster={"ray_address": "auto", "gpus_per_learner": 1}))
    assert p.resources is None
    p.check()


def test_the_drawn_plan_names_actors_work_and_shortage() -> None:
    text = render_plan(with_judge(), machine(1))
    for part in (
        "learner",
        "rollout",
        "reward",
        "this machine: 1 CPU, 0 GPU",
        "sequences",
        "judge calls",
        "Qwen3-32B",
        "240",
        "will not start",
    ):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize(
    ("model", "kl_beta", "told"),
    [
        ({"lora": {"rank": 8}}, 0.1, "bf16, LoRA of rank 8, reference: the policy without its adapters; "),
        ({"lora": {"rank": 8}, "freeze_vision": False}, 0.1, "bf16, LoRA of rank 8, frozen reference; "),
        ({"lora": {"rank": 8}}, 0, "bf16, LoRA of rank 8; "),
        ({"freeze_vision": False}, 0.1, "bf16, frozen reference; "),
        ({}, 0, "bf16; "),
    ],
)
def test_the_learners_adapters_and_reference_are_told(model: dict[str, object], kl_beta: float, told: str) -> None:
    settings = {"path": "model", "freeze_projector": True} | model
    learner = plan(rl_run(model=settings, algorithm={"kl_beta": kl_beta}), TWO_CORES).actors[0]
    assert f", {told}" in learner.does


def test_unknown_length_is_said(tmp_path: Path) -> None:
    text = render_plan(rl_run(num_steps=None, data=data_at(tmp_path / "no.jsonl")), TWO_CORES)
    assert "the run's length is unknown until data.train is there" in " ".join(text.split())


ENGINES = {
    "ray_address": "auto",
    "gpus_per_learner": 1,
    "learner_ranks": 6,
    "rollout_workers": 2,
    "tensor_parallel": 4,
    "gpus_per_rollout": 4,
}


def test_an_engine_is_never_divided_over_nodes() -> None:
    p = plan(rl_run(cluster=ENGINES), cluster((32, 8), (32, 6)))  # 14 GPUs asked for, 14 there
    with pytest.raises(PlacementError, match=r"1 of 2 rollout actors of 1 CPU and 4 GPU each find no node") as caught:
        plan(rl_run(cluster=ENGINES), cluster((32, 6), (32, 6), (32, 2))).check()
    assert "n2: 32 CPU, 2 GPU" in str(caught.value)
    p.check()
    assert p.layout is not None
    assert p.layout.on("n0") == (Share("n0", "rollout", 2),)
    assert p.layout.on("n1")[0] == Share("n1", "learner", 6)


def test_ranks_go_on_as_few_nodes_as_hold_them() -> None:
    ranks = ActorPlan("learner", 6, 1.0, 1, "")
    assert lay_out([ranks], cluster((9, 8), (9, 6), (9, 2)).nodes).shares == (Share("n1", "learner", 6),)
    assert [share.count for share in lay_out([ranks], cluster((9, 4), (9, 4)).nodes).shares] == [4, 2]


def test_a_cluster_is_drawn_from_its_description() -> None:
    described = ENGINES | {"num_nodes": 2, "cpus_per_node": 32, "gpus_per_node": 8}
    text = render_plan(rl_run(cluster=described))
    for part in ("node 0: 32 CPU, 8 GPU", "6 x learner (1 CPU and 1 GPU)", "2 x rollout (1 CPU and 4 GPU)"):
        assert part in text
    assert "cluster.cpus_per_node" in " ".join(render_plan(rl_run(cluster=ENGINES)).split())


SHARED = {"gpus_per_learner": 1, "gpus_per_rollout": 1, "colocate": True, "learner_ranks": 3, "rollout_workers": 3}


def test_a_rank_and_the_engine_that_shares_its_gpu_are_placed_as_one() -> None:
    p = plan(rl_run(cluster=SHARED), machine(16, 4))
    assert p.gpus == 3
    assert p.layout is not None
    assert p.layout.shares[0] == Share("this machine", "learner + rollout", 3)
    p.check()
    assert "in turns on one GPU" in " ".join(render_plan(rl_run(cluster=SHARED), machine(16, 4)).split())


def test_states_that_deepspeed_cannot_move_off_a_shared_gpu_are_told() -> None:
    def notes(**deepspeed: object) -> str:
        return " ".join(plan(rl_run(cluster=SHARED, deepspeed=deepspeed), machine(16, 4)).notes)

    assert "at ZeRO-3 DeepSpeed cannot move" in notes(zero_stage=3)
    assert "cannot move" not in notes(zero_stage=2)
    assert "cannot move" not in notes(zero_stage=3, offload_params=True)


JUDGED = {"gpus_per_learner": 1, "gpus_per_rollout": 1, "judge_servers": 1, "gpus_per_judge": 2}


def test_a_judges_server_takes_room_beside_ray_and_none_of_rays() -> None:
    cfg = rl_run(cluster=JUDGED)
    with pytest.raises(PlacementError, match="4 GPUs asked for, 3 there"):
        plan(cfg, machine(16, 3)).check()
    plan(cfg, machine(16, 4)).check()
    joined = Resources(
        (Node("n0", 16, 2),), what="the Ray cluster", with_judges=False
    )  # the judge's GPUs hidden from it
    plan(cfg, joined).check()
    drawn = render_plan(cfg, machine(16, 4))
    assert "1 x judge (1 CPU and 2 GPU)" in drawn
    assert "1 x judge" not in render_plan(cfg, joined)


def test_a_judge_on_these_machines_without_room_in_the_plan_is_told() -> None:
    assert "leaves it no room" in " ".join(plan(with_judge(), TWO_CORES).notes)
    assert "leaves it no room" not in " ".join(plan(with_judge(cluster={"judge_servers": 1}), machine(4)).notes)


def test_motion_actors_share_gpus_and_are_never_divided_over_two() -> None:
    asked = {"gpus_per_learner": 1, "gpus_per_rollout": 1, "motion_actors": 3, "gpus_per_motion": 0.4}
    p = plan(rl_run(cluster=asked), machine(16, 4))
    assert p.layout is not None
    assert Share("this machine", "motion", 3) in p.layout.shares
    p.check()
    with pytest.raises(PlacementError, match=r"1 of 3 motion actors of 1 CPU and 0\.6 GPU each find no node"):
        plan(rl_run(cluster=asked | {"gpus_per_motion": 0.6}), machine(16, 4)).check()


def test_three_nodes_are_drawn_with_every_kind_on_its_node() -> None:
    described = {"ray_address": "auto", "num_nodes": 3, "cpus_per_node": 8, "gpus_per_node": 4}
    asked = described | JUDGED | {"learner_ranks": 3, "rollout_workers": 4, "motion_actors": 2, "gpus_per_motion": 0.5}
    text = render_plan(rl_run(cluster=asked, motion={"enabled": True}))
    nodes = [line for line in text.splitlines() if " x " in line]
    for part in ("3 x learner", "4 x rollout", "1 x judge (1 CPU and 2 GPU)", "2 x motion (1 CPU and 0.5 GPU)"):
        assert any(part in line for line in nodes)
    assert "will not start" not in text
