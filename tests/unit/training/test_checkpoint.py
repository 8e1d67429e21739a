"""Checkpoints appear whole or not at all, and only the run they belong to loads them."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from owlcap.config_io import load_run
from owlcap.errors import CheckpointError, DataError
from owlcap.training.checkpoint import (
    META,
    Adapters,
    CheckpointMeta,
    CheckpointStore,
    DataCursor,
    Layout,
    check_layout,
    check_run,
    load_meta,
)

LAYOUT = Layout(2, 3, "fp32", (("embed", (8, 4), True), ("head", (8, 4), False)))


def meta(step: int) -> CheckpointMeta:
    return CheckpointMeta(step=step, cursor=DataCursor(1, step), layout=LAYOUT, policy_version=7)


def write_state(folder: Path) -> None:
    (folder / "engine").mkdir()
    (folder / "engine" / "state.pt").write_bytes(b"x" * 100_000)


@contextmanager
def disk_of(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond `num_bytes`: what a full disk looks like, to root too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_is_read_back_as_written(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path, keep=2).write(meta(3), write_state)
    assert load_meta(path) == meta(3)
    assert (path / "engine" / "state.pt").stat().st_size == 100_000


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.latest() is None
    for step in (1, 2, 10):
        store.write(meta(step), write_state)
    assert [path.name for path in store.complete()] == ["step-00000002", "step-00000010"]
    assert store.latest() == tmp_path / "step-00000010"


def test_a_step_written_again_replaces_the_first(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    store.write(meta(1), write_state)
    path = store.write(meta(1), lambda folder: (folder / "other").write_text("new"))
    assert sorted(p.name for p in path.iterdir()) == [META, "other"]


def test_half_written_folders_are_never_taken_for_checkpoints(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    good = store.write(meta(1), write_state)
    (tmp_path / ".writing-step-00000002").mkdir()
    (tmp_path / ".writing-step-00000002" / META).write_text("{}")
    (tmp_path / "step-00000003").mkdir()  # no meta.json: not complete
    assert store.latest() == good
    store.write(meta(4), write_state)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda good: (good / "engine" / "state.pt").write_bytes(b"x" * 10), "state.pt has 10 of 100000 bytes"),
        (lambda good: (good / "engine" / "state.pt").unlink(), "state.pt is not there"),
        (lambda good: (good / META).write_text('{"format": 1, '), "meta.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], said: str
) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    good = store.write(meta(1), write_state)
    harm(store.write(meta(2), write_state))
    assert store.latest() == good
    assert "step-00000002 is passed over" in caplog.text
    assert said in caplog.text


def damage(checkpoint: Path) -> None:
    (checkpoint / "engine" / "state.pt").unlink()


def test_damaged_checkpoints_do_not_count_among_those_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    first = store.write(meta(1), write_state)
    damage(store.write(meta(2), write_state))
    third = store.write(meta(3), write_state)
    assert store.complete() == [first, third]
    fourth = store.write(meta(4), write_state)
    assert sorted(tmp_path.iterdir()) == [third, fourth]


def test_checkpoints_after_the_one_resumed_from_are_set_aside_and_not_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (5, 6):
        damage(store.write(meta(step), write_state))
    for _ in range(2):  # the second time the name is taken
        damage(store.write(meta(7), write_state))
        new = store.write(meta(2), write_state)
        assert store.latest() == new
    assert "step-00000005 is of an earlier start of the run: kept as aside-step-00000005" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aside-step-00000005",
        "aside-step-00000006",
        "aside-step-00000007",
        "aside-step-00000007.2",
        "step-00000002",
    ]


def test_checkpoints_of_which_none_is_whole_are_an_error_that_names_each(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)
    for step in (1, 2):
        damage(store.write(meta(step), write_state))
    (store.root / "step-00000003").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint of the run is whole") as caught:
        store.latest()
    for part in (
        "step-00000001: engine/state.pt is not there",
        "step-00000002: engine/state.pt is not there",
        "step-00000003: meta.json cannot be read",
        f"another name=..., or remove {tmp_path / 'run'} and start again",
    ):
        assert part in str(caught.value)


def test_a_full_disk_is_one_error_and_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    good = store.write(meta(1), write_state)
    with disk_of(50_000), pytest.raises(CheckpointError, match="File too large") as error:
        store.write(meta(2), write_state)
    assert str(tmp_path) in str(error.value)
    assert "GiB free" in str(error.value)
    assert store.latest() == good
    assert (good / "engine" / "state.pt").stat().st_size == 100_000
    assert not list(tmp_path.glob(".*"))


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        CheckpointStore(tmp_path / "file" / "checkpoints", keep=1).write(meta(1), write_state)


def test_an_error_of_the_writer_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write_state(folder)
        raise DataError("another error")

    with pytest.raises(DataError, match="another error"):
        CheckpointStore(tmp_path, keep=1).write(meta(1), fail)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_description_is_an_error(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path, keep=1).write(meta(1), write_state)
    text = (path / META).read_text()
    (path / META).write_text(text[:20])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_meta(path)
    (path / META).write_text(json.dumps({**json.loads(text), "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        load_meta(path)


def test_equal_layouts_pass(tmp_path: Path) -> None:
    check_layout(tmp_path, LAYOUT, replace(LAYOUT))


def test_every_difference_of_set_up_and_model_is_named(tmp_path: Path) -> None:
    current = Layout(4, 2, "bf16", (("embed", (16, 4), True), ("head", (8, 4), True), ("new", (1,), True)))
    with pytest.raises(CheckpointError) as error:
        check_layout(tmp_path, LAYOUT, current)
    message = str(error.value)
    for part in (
        "cluster.learner_ranks: checkpoint 2, run 4",
        "deepspeed.zero_stage: checkpoint 3, run 2",
        "model.dtype: checkpoint fp32, run bf16",
        "embed: shape [8, 4] in the checkpoint, [16, 4] in the model",
        "head: frozen in the checkpoint, not so in the run",
        "new: only in the model",
    ):
        assert part in message


ADAPTERS = Adapters(rank=4, alpha=8, layers=("k_proj", "q_proj"), base="0123")


def test_adapters_are_read_back_as_written(tmp_path: Path) -> None:
    adapted = replace(meta(3), layout=replace(LAYOUT, adapters=ADAPTERS))
    assert load_meta(CheckpointStore(tmp_path, keep=2).write(adapted, write_state)) == adapted


@pytest.mark.parametrize(
    ("current", "difference"),
    [
        (
            replace(ADAPTERS, base="4567"),
            r"model.path \(.*not train\): checkpoint 0123, run 4567",
        ),
        (replace(ADAPTERS, alpha=16), "model.lora.alpha: checkpoint 8, run 16"),
        (
            replace(ADAPTERS, layers=("q_proj",)),
            r"model.lora.layers: checkpoint \('k_proj', 'q_proj'\), run \('q_proj',\)",
        ),
        (None, "model.lora: checkpoint of rank 4, run none"),
    ],
)
def test_adapters_of_another_base_model_scale_or_place_are_refused(
    tmp_path: Path, current: Adapters | None, difference: str
) -> None:
    with pytest.raises(CheckpointError, match=difference):
        check_layout(tmp_path, replace(LAYOUT, adapters=ADAPTERS), replace(LAYOUT, adapters=current))


def test_a_run_of_other_settings_is_refused_before_anything_starts(tmp_path: Path) -> None:
    layout = replace(LAYOUT, zero_stage=2, adapters=ADAPTERS)
    checkpoint = CheckpointStore(tmp_path, keep=2).write(replace(meta(3), layout=layout), write_state)
    lora = ["model.lora.rank=4", "model.lora.alpha=8", "model.lora.layers=[q_proj,k_proj]"]
    check_run(checkpoint, load_run("toy_grpo", lora), (), 100)
    with pytest.raises(CheckpointError, match=r"model\.lora\.alpha: checkpoint 8, run 64") as caught:
        check_run(checkpoint, load_run("toy_grpo", [lora[0], lora[2], "model.dtype=bf16"]), (), 100)
    assert "model.dtype: checkpoint fp32, run bf16" in str(caught.value)


def test_a_run_is_not_resumed_behind_its_last_step(tmp_path: Path) -> None:
    run = load_run("toy_grpo")
    layout = replace(LAYOUT, world_size=run.cluster.learner_ranks, zero_stage=2)
    checkpoint = CheckpointStore(tmp_path, keep=2).write(replace(meta(5), layout=layout), write_state)
    check_run(checkpoint, run, (), 5)
    with pytest.raises(CheckpointError, match="has 5 steps behind it, and its settings end it after 4"):
        check_run(checkpoint, run, (), 4)


def test_a_disk_without_room_is_found_before_any_rank_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    store.write(meta(1), write_state)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
    asked: list[Path] = []
    with pytest.raises(CheckpointError, match="MiB are wanted"):
        store.write(meta(2), asked.append)
    assert asked == []
    assert [path.name for path in store.complete()] == ["step-00000001"]
