"""Which pairs may run together in vLLM: two rows each, all prompts in one step, keys and values for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owlcap.errors import RolloutError
from owlcap.inference.lockstep import EngineRoom, PairSize, plan_waves

ROOM = EngineRoom(max_num_seqs=8, max_num_batched_tokens=1000, block_tokens=32, num_blocks=100)
SMALL = PairSize(visual=40, motion=60, max_new=20)


def test_no_more_pairs_run_together_than_half_the_sequences() -> None:
    assert plan_waves([SMALL] * 9, ROOM) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_the_prompts_of_a_wave_fit_one_step() -> None:
    long = PairSize(visual=200, motion=250, max_new=20)
    assert plan_waves([long, long, SMALL, long], ROOM) == [[0, 1, 2], [3]]


def test_there_are_blocks_for_captions_of_the_largest_length() -> None:
    wordy = PairSize(visual=40, motion=60, max_new=700)  # 24 + 24 blocks
    assert plan_waves([wordy] * 3, ROOM) == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("size", "room", "reason"),
    [
        (PairSize(500, 600, 20), ROOM, "do not fit one engine step"),
        (PairSize(400, 500, 1500), ROOM, "blocks of keys and values"),
        (SMALL, EngineRoom(1, 1000, 32, 100), "two sequences"),
    ],
)
def test_a_pair_that_never_fits_is_refused(size: PairSize, room: EngineRoom, reason: str) -> None:
    with pytest.raises(RolloutError, match=reason):
        plan_waves([SMALL, size] if room is ROOM else [size], room)


@given(st.lists(st.builds(PairSize, st.integers(1, 300), st.integers(1, 300), st.integers(1, 500)), max_size=30))
def test_every_pair_runs_once_in_order_and_no_wave_is_too_large(sizes: list[PairSize]) -> None:
    waves = plan_waves(sizes, ROOM)
    assert [index for wave in waves for index in wave] == list(range(len(sizes)))
    for wave in waves:
        pairs = [sizes[index] for index in wave]
        assert 2 * len(pairs) <= ROOM.max_num_seqs
        assert sum(pair.visual + pair.motion for pair in pairs) <= ROOM.max_num_batched_tokens
        assert sum(ROOM.blocks(pair) for pair in pairs) <= ROOM.num_blocks
