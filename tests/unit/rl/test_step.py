"""A step's data: what the learner gets, what is logged, what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from owlcap.config import AlgorithmSection
from owlcap.types import (
    Completion,
    Judgement,
    RewardBreakdown,
    RolloutFailure,
    RolloutGroup,
    Sample,
    Score,
    ScoredGroup,
    ScoredRollout,
    Unit,
    Unscored,
)
from rl.step import assemble, write_rows

GRPO = AlgorithmSection()
UNSCORED = Unscored("cser", "judge: no answer")


def sample(name: str) -> Sample:
    return Sample(name, f"{name}.mp4", "Describe.", "a cat", "a cat sits")


def completion(num_tokens: int, finish: str = "stop") -> Completion:
    ids = tuple(range(num_tokens))
    return Completion(ids, tuple(-0.5 for _ in ids), "a cat", finish, policy_version=3)  # type: ignore[arg-type]


def reward(total: float, **metrics: float) -> RewardBreakdown:
    return RewardBreakdown(total, parts={"cser": Score(total)}, metrics=metrics)


def scored(name: str, scores: list[ScoredRollout], lengths: list[int] | None = None) -> ScoredGroup:
    completions = tuple(completion(n) for n in lengths or [4] * len(scores))
    return ScoredGroup(
        RolloutGroup(sample(name), completions, prompt=f"prompt of {name}", num_prompt_tokens=10), tuple(scores)
    )


def test_the_learner_gets_scored_completions_only() -> None:
    batch = assemble([scored("a", [reward(1.0), UNSCORED, reward(2.0)], [2, 3, 4])], GRPO, step=1)
    (group,) = batch.groups
    assert [len(ids) for ids in group.completions] == [2, 4]
    assert [len(values) for values in group.rollout_logprobs] == [2, 4]
    assert group.prompt == "prompt of a"
    assert group.advantages[0] == -group.advantages[1] < 0
    assert batch.num_prompt_tokens == (10,)
    assert batch.unscored_share == pytest.approx(1 / 3)


def test_groups_without_any_score_and_failures_never_reach_the_learner() -> None:
    failure = RolloutFailure(sample("b"), "VideoError", "the file is empty")
    results = [scored("a", [UNSCORED, UNSCORED]), failure, scored("c", [reward(1.0), reward(1.0)])]
    batch = assemble(results, GRPO, step=1)
    assert [group.prompt for group in batch.groups] == ["prompt of c"]
    assert batch.groups[0].advantages == (0.0, 0.0)
    assert batch.num_failed == 1
    assert batch.values["rollout/failed"] == 1
    assert batch.values["rollout/groups"] == 2
    assert batch.values["advantage/groups_too_few_scored"] == 1
    assert batch.values["advantage/groups_without_variance"] == 1
    assert batch.unscored_share == pytest.approx(0.5)


def test_groups_of_equal_rewards_can_be_left_out_and_are_counted_either_way() -> None:
    results = [scored("a", [reward(1.0), reward(1.0)]), scored("b", [reward(1.0), reward(2.0)])]
    kept = assemble(results, GRPO, step=1)
    dropped = assemble(results, GRPO.model_copy(update={"drop_zero_variance": True}), step=1)
    assert [group.prompt for group in kept.groups] == ["prompt of a", "prompt of b"]
    assert [group.prompt for group in dropped.groups] == ["prompt of b"]
    assert dropped.groups[0].advantages == kept.groups[1].advantages
    assert dropped.values["advantage/groups_without_variance"] == 1
    assert kept.values["advantage/groups_without_variance"] == 1


def test_a_step_of_failures_alone_has_nothing_to_learn() -> None:
    batch = assemble([RolloutFailure(sample("a"), "VideoError", "missing")], GRPO, step=1)
    assert batch.groups == ()
    assert batch.values["rollout/failed"] == 1
    assert batch.unscored_share == 0.0


def test_means_are_over_the_rollouts_that_have_a_figure() -> None:
    results = [
        scored("a", [reward(1.0, cser=1.0, motion_f1=0.5), reward(2.0, cser=2.0)], [2, 4]),
        scored("b", [reward(0.0, cser=0.0), UNSCORED], [6, 8]),
    ]
    values = assemble(results, GRPO, step=1).values
    assert values["reward/mean"] == pytest.approx(1.0)
    assert values["reward/cser"] == pytest.approx(1.0)
    assert values["reward/motion_f1"] == pytest.approx(0.5)
    assert values["reward/part_cser"] == pytest.approx(1.0)
    assert values["reward/std_in_group"] == pytest.approx(0.5**0.5)  # of group a; b has one score
    assert values["rollout/tokens"] == pytest.approx(5.0)


def test_cut_off_completions_are_counted() -> None:
    group = RolloutGroup(sample("a"), (completion(4, "length"), completion(2)), num_prompt_tokens=10)
    values = assemble([ScoredGroup(group, (reward(1.0), reward(2.0)))], GRPO, step=1).values
    assert values["rollout/truncated_share"] == 0.5


def test_every_prompt_has_a_row_in_order(tmp_path: Path) -> None:
    failure = RolloutFailure(sample("b"), "VideoError", "the file is empty")
    batch = assemble([scored("a", [reward(1.0, cser=1.0), UNSCORED]), failure], GRPO, step=7)
    write_rows(batch.rows, tmp_path / "rows.jsonl")
    first, second = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert (first["step"], first["id"], first["policy_version"]) == (7, "a", 3)
    assert first["completions"][0]["reward"] == 1.0
    assert first["completions"][0]["metrics"] == {"cser": 1.0}
    assert first["completions"][1] | {"text": ""} == {
        "text": "",
        "num_tokens": 4,
        "finish_reason": "stop",
        "reward": None,
        "advantage": None,
        "metrics": {},
        "unscored": "cser: judge: no answer",
        "parts": {},
    }
    assert second["failure"] == "VideoError: the file is empty"
    assert second["completions"] == []


def test_a_row_says_which_part_of_the_video_and_which_overlays_were_shown(tmp_path: Path) -> None:
    part = replace(sample("a"), start_s=1.5, end_s=4.0, overlays=("0.png", "1.png"))
    shown = ScoredGroup(RolloutGroup(part, (completion(2),), num_prompt_tokens=10), (reward(1.0),))
    write_rows(assemble([shown, RolloutFailure(part, "VideoError", "")], GRPO, step=1).rows, tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["start_s"], row["end_s"], row["overlays"]) for row in rows] == [(1.5, 4.0, ["0.png", "1.png"])] * 2


def test_a_logged_caption_carries_the_evidence_of_every_reward(tmp_path: Path) -> None:
    judgement = Judgement(
        predicted_units=(Unit("a cat sits", "motion", "supported"),),
        reference_units=(Unit("a cat", "detail", "not_mentioned"),),
        judge="a-judge",
        reply_ids=("reply-1", "reply-2"),
    )
    parts = {"cser": Score(1.5, judgements=(judgement,)), "length": Score(0.2)}
    batch = assemble([scored("a", [RewardBreakdown(1.7, parts), UNSCORED])], GRPO, step=1)
    write_rows(batch.rows, tmp_path / "rows.jsonl")
    first, unscored = json.loads((tmp_path / "rows.jsonl").read_text())["completions"]
    assert first["parts"] == {
        "cser": {
            "value": 1.5,
            "judgements": [
                {
                    "predicted_units": [{"text": "a cat sits", "tag": "motion", "label": "supported"}],
                    "reference_units": [{"text": "a cat", "tag": "detail", "label": "not_mentioned"}],
                    "judge": "a-judge",
                    "reply_ids": ["reply-1", "reply-2"],
                }
            ],
        },
        "length": {"value": 0.2, "judgements": []},
    }
    assert unscored["parts"] == {}
    assert first["text"] == "a cat"
