"""A step's cut: nothing lost, nothing twice, ranks in step, the limit kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from owlcap.config import RlRun
from rl.batching import GroupSize, MicroBatch, MiniBatch, plan_update

SIZES = st.lists(
    st.builds(
        GroupSize,
        num_prompt_tokens=st.integers(1, 60),
        completion_lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def counted(minibatch: MiniBatch) -> list[MicroBatch]:
    return [micro for rank in minibatch.ranks for micro in rank if micro.weight]


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(1, 4), st.integers(1, 3), st.integers(20, 400))
def test_every_completion_counts_exactly_once(
    sizes: list[GroupSize], num_ranks: int, num_minibatches: int, limit: int
) -> None:
    plan = plan_update(sizes, num_ranks=num_ranks, num_minibatches=num_minibatches, tokens_per_micro_batch=limit)
    pieces = [piece for mini in plan for micro in counted(mini) for piece in micro.pieces]
    seen = [(piece.group, i) for piece in pieces for i in piece.completions]
    assert sorted(seen) == [(g, i) for g, size in enumerate(sizes) for i in range(len(size.completion_lengths))]
    assert len(plan) == min(num_minibatches, len(sizes))
    assert sum(mini.size.num_sequences for mini in plan) == sum(len(size.completion_lengths) for size in sizes)
    assert sum(mini.size.num_tokens for mini in plan) == sum(sum(size.completion_lengths) for size in sizes)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(1, 4), st.integers(20, 400))
def test_ranks_stay_in_step_and_under_the_limit(sizes: list[GroupSize], num_ranks: int, limit: int) -> None:
    (mini,) = plan_update(sizes, num_ranks=num_ranks, num_minibatches=1, tokens_per_micro_batch=limit)
    assert len(mini.ranks) == num_ranks
    assert len({len(rank) for rank in mini.ranks}) == 1
    assert all(micro.pieces for rank in mini.ranks for micro in rank)
    for micro in counted(mini):
        num_tokens = len(micro.pieces) * max(piece.num_packed_tokens for piece in micro.pieces)
        one_completion = len(micro.pieces) == 1 and len(micro.pieces[0].completions) == 1
        assert num_tokens <= limit or one_completion
        for piece in micro.pieces:
            lengths = sizes[piece.group].completion_lengths
            assert piece.num_packed_tokens == sizes[piece.group].num_prompt_tokens + sum(
                lengths[i] for i in piece.completions
            )


def test_equal_groups_are_shared_equally_and_packed_together() -> None:
    sizes = [GroupSize(100, (25, 25, 25, 25))] * 8
    (mini,) = plan_update(sizes, num_ranks=2, num_minibatches=1, tokens_per_micro_batch=800)
    assert [[len(micro.pieces) for micro in rank] for rank in mini.ranks] == [[4], [4]]
    (mini,) = plan_update(sizes, num_ranks=2, num_minibatches=1, tokens_per_micro_batch=400)
    assert [[len(micro.pieces) for micro in rank] for rank in mini.ranks] == [[2, 2], [2, 2]]


def test_long_and_short_groups_are_balanced() -> None:
    sizes = [GroupSize(10, (length,)) for length in (90, 10, 80, 20)]
    (mini,) = plan_update(sizes, num_ranks=2, num_minibatches=1, tokens_per_micro_batch=1000)
    assert [sorted(piece.group for piece in rank[0].pieces) for rank in mini.ranks] == [[0, 1], [2, 3]]


def test_a_group_above_the_limit_is_cut_by_completions() -> None:
    (mini,) = plan_update([GroupSize(50, (30,) * 4)], num_ranks=1, num_minibatches=1, tokens_per_micro_batch=110)
    assert [[len(piece.completions) for piece in micro.pieces] for micro in mini.ranks[0]] == [[2], [2]]
    (mini,) = plan_update([GroupSize(500, (30, 30))], num_ranks=1, num_minibatches=1, tokens_per_micro_batch=110)
    assert [[piece.completions for piece in micro.pieces] for micro in mini.ranks[0]] == [[(0,)], [(1,)]]


def test_a_rank_without_work_repeats_some_that_counts_for_nothing() -> None:
    (mini,) = plan_update([GroupSize(10, (5, 5))], num_ranks=2, num_minibatches=1, tokens_per_micro_batch=100)
    assert sorted(micro.weight for rank in mini.ranks for micro in rank) == [0, 1]
    assert mini.ranks[0][0].pieces == mini.ranks[1][0].pieces


def test_mini_batches_take_groups_in_order() -> None:
    sizes = [GroupSize(10, (5,))] * 6
    plan = plan_update(sizes, num_ranks=1, num_minibatches=3, tokens_per_micro_batch=1000)
    groups = [sorted(piece.group for micro in mini.ranks[0] for piece in micro.pieces) for mini in plan]
    assert groups == [[0, 1], [2, 3], [4, 5]]


def test_prompts_that_do_not_divide_by_ranks_are_refused_with_the_nearest_count() -> None:
    settings = {
        "name": "toy",
        "model": {"path": "model"},
        "data": {"train": "train.jsonl"},
        "optimizer": {"lr": 1e-3},
        "cluster": {"learner_ranks": 2},
        "algorithm": {"num_minibatches": 2},
        "rollout": {"prompts_per_step": 10},
    }
    with pytest.raises(ValidationError, match=r"prompts_per_step is 10; it must be a multiple of 4 .*use (8|12)"):
        RlRun.model_validate(settings)
