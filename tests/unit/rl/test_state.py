"""Order of prompts, seeds, and the driver's state on disk."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from owlcap.errors import CheckpointError, ConfigError
from owlcap.training.checkpoint import DataCursor
from rewards.monitors import MonitorState
from rl.state import PromptOrder, TrainerState, load_state, sampling_seed, save_state


def walk(order: PromptOrder, num_steps: int, start: DataCursor | None = None) -> list[tuple[DataCursor, list[int]]]:
    cursor, seen = start or DataCursor(), []
    for _ in range(num_steps):
        seen.append((cursor, order.rows(cursor)))
        cursor = order.after(cursor)
    return seen


def test_an_epoch_takes_every_row_once_and_the_next_is_shuffled_anew() -> None:
    steps = walk(PromptOrder(12, 4, seed=3), 6)
    first = [row for _, rows in steps[:3] for row in rows]
    second = [row for _, rows in steps[3:] for row in rows]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert [(cursor.epoch, cursor.batch) for cursor, _ in steps] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_a_rest_too_small_for_a_step_is_left_out() -> None:
    order = PromptOrder(11, 4, seed=0)
    assert order.steps_per_epoch == 2
    assert order.after(DataCursor(0, 1)) == DataCursor(1, 0)
    assert len({row for _, rows in walk(order, 2) for row in rows}) == 8


@pytest.mark.parametrize("done", [1, 3, 4, 6])
def test_going_on_from_a_saved_place_gives_the_same_rows(done: int) -> None:
    straight = walk(PromptOrder(12, 4, seed=9), 8)
    assert walk(PromptOrder(12, 4, seed=9), 8 - done, straight[done][0]) == straight[done:]


def test_the_seed_decides_the_order() -> None:
    assert walk(PromptOrder(50, 10, seed=1), 5) != walk(PromptOrder(50, 10, seed=2), 5)


def test_too_little_data_for_one_step_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="one step takes 8 prompts, the training data has 5 rows"):
        PromptOrder(5, 8, seed=0)


@pytest.mark.parametrize("batch", [3, 4])
def test_a_place_beyond_the_epoch_is_an_error_and_not_a_step_without_prompts(batch: int) -> None:
    with pytest.raises(CheckpointError, match=f"step {batch + 1} of an epoch .* an epoch has 3: 13 rows, 4 prompts"):
        PromptOrder(13, 4, seed=0).rows(DataCursor(1, batch))


def test_sampling_seeds_are_fixed_and_far_apart() -> None:
    seeds = sorted(sampling_seed(run, step, index) for run in range(3) for step in range(40) for index in range(16))
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 1024
    assert max(seeds) < 2**48
    assert sampling_seed(0, 1, 2) == 181470410220645


def test_the_state_reads_back_equal(tmp_path: Path) -> None:
    state = TrainerState(step=7, cursor=DataCursor(1, 3), policy_version=6, num_prompts=112, num_failed=2)
    save_state(state, tmp_path)
    assert load_state(tmp_path) == state


def test_what_the_monitors_remember_reads_back_equal(tmp_path: Path) -> None:
    state = TrainerState(step=7, monitors=MonitorState(3, 0.1 + 0.2, ("repetition", "unit_growth")))
    save_state(state, tmp_path)
    assert load_state(tmp_path) == state


def test_a_state_from_before_there_were_monitors_reads(tmp_path: Path) -> None:
    save_state(TrainerState(step=7), tmp_path)
    old = json.loads((tmp_path / "trainer.json").read_text())
    del old["monitors"]
    (tmp_path / "trainer.json").write_text(json.dumps(old))
    assert load_state(tmp_path) == TrainerState(step=7)


def test_a_broken_state_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "trainer.json").write_text('{"step": 7')
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path)
