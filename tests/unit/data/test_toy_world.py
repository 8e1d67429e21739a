"""The toy data set on disk: complete or absent, the same for the same parameters."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owlcap.config import DataSection
from owlcap.data.rows import read_rows
from owlcap.data.toy import TOY_PROMPTS, ToyVideo, ToyWorld, make_toy_world
from owlcap.data.toy import world as world_module
from owlcap.data.toy.lexicon import parse
from owlcap.errors import DataError


def make(out: Path, **changes: Any) -> ToyWorld:
    settings: dict[str, Any] = {"num_train": 3, "num_validation": 2, "num_test": 2, "seed": 5, "workers": 1}
    return make_toy_world(out, **{**settings, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_name_videos_captions_and_facts(tmp_path: Path) -> None:
    made = make(tmp_path / "toy")
    assert made.train == tmp_path / "toy" / "train.jsonl"
    for split, count in (("train", 3), ("validation", 2), ("test", 2)):
        brief = read_rows(getattr(made, split), check_files=True)
        full = read_rows(getattr(made, split), DataSection(train="", target="full", reference="full"))
        assert [sample.id for sample in brief] == [f"{split}-{index:06d}" for index in range(count)]
        for sample, whole in zip(brief, full, strict=True):
            assert sample.prompt in TOY_PROMPTS
            assert sample.reference == whole.reference == whole.caption
            assert parse(whole.caption).facts == {fact.text for fact in whole.facts}
            assert parse(sample.caption).units
            assert len(sample.caption) < len(whole.caption)


def test_the_same_parameters_give_the_same_files_with_any_number_of_workers(tmp_path: Path) -> None:
    one = make(tmp_path / "one", num_train=5)
    two = make(tmp_path / "two", num_train=5, workers=2)
    assert contents(one.root) == contents(two.root)
    assert len(contents(one.root)) == 9 + 3 + 1


def test_a_split_does_not_depend_on_the_size_of_the_others(tmp_path: Path) -> None:
    small, large = make(tmp_path / "small"), make(tmp_path / "large", num_train=6)
    assert small.test.read_bytes() == large.test.read_bytes()
    assert small.train.read_bytes() == b"".join(large.train.read_bytes().splitlines(keepends=True)[:3])


def test_a_complete_folder_is_returned_as_it_is(tmp_path: Path) -> None:
    made = make(tmp_path / "toy")
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    calls: list[tuple[int, int]] = []
    assert make(tmp_path / "toy", progress=lambda done, total: calls.append((done, total))) == made
    assert {path: path.stat().st_mtime_ns for path in made.root.rglob("*")} == before
    assert calls == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 6}, "seed 5 -> 6"),
        ({"num_train": 4}, "train 3 -> 4"),
        ({"video": ToyVideo(fps=2.0)}, "'fps': 2.0"),
    ],
)
def test_other_parameters_for_the_same_folder_are_an_error(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    made = make(tmp_path / "toy")
    before = contents(made.root)
    with pytest.raises(DataError, match="made otherwise") as caught:
        make(tmp_path / "toy", **changes)
    assert said in caught.value.what
    assert caught.value.cure
    assert contents(made.root) == before


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not a finished toy data set"):
        make(tmp_path / "toy")
    assert contents(tmp_path / "toy") == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("record", [b"{", b"\xff", b"[]"])
def test_a_broken_record_is_an_error(tmp_path: Path, record: bytes) -> None:
    made = make(tmp_path / "toy")
    (made.root / "world.json").write_bytes(record)
    with pytest.raises(DataError):
        make(tmp_path / "toy")


def test_a_failure_midway_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "toy", progress=stop)
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "toy")


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device") as caught:
        make(tmp_path / "toy")
    assert caught.value.where == str(tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        make(tmp_path / "file" / "toy")


def test_what_a_killed_run_left_is_swept_away_and_a_living_one_is_not(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    prefix = world_module._partial_prefix(tmp_path / "toy")
    dead, alive = tmp_path / f"{prefix}{int(ended.stdout)}-x", tmp_path / f"{prefix}{os.getpid()}-x"
    for folder in (dead, alive):
        (folder / "videos").mkdir(parents=True)
    make(tmp_path / "toy")
    assert not dead.exists()
    assert alive.exists()


def test_a_world_made_meanwhile_by_another_process_is_taken(tmp_path: Path) -> None:
    def overtake(done: int, total: int) -> None:
        if done == total:
            make(tmp_path / "toy")

    made = make(tmp_path / "toy", progress=overtake)
    assert len(read_rows(made.train, check_files=True)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_progress_counts_every_clip(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make(tmp_path / "toy", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 7) for done in range(1, 8)]


def test_size_and_timing_of_the_clips_are_free(tmp_path: Path) -> None:
    import av

    made = make(tmp_path / "toy", video=ToyVideo(width=84, height=56, num_frames=8, fps=2.0))
    with av.open(read_rows(made.train)[0].video) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (84, 56, 8, 2)
    assert json.loads((made.root / "world.json").read_text())["video"]["fps"] == 2.0


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train": -1},
        {"num_train": 0, "num_validation": 0, "num_test": 0},
        {"workers": 0},
        {"video": replace(ToyVideo(), width=14)},
        {"video": replace(ToyVideo(), height=84)},
        {"video": replace(ToyVideo(), num_frames=2)},
        {"video": replace(ToyVideo(), fps=0.0)},
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        make(tmp_path / "toy", **changes)
    assert caught.value.allowed
    assert caught.value.cure
    assert list(tmp_path.iterdir()) == []


def test_importing_the_world_and_its_parser_takes_no_heavy_package() -> None:
    code = "import sys, owlcap.data.toy.lexicon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"torch", "ray", "vllm", "transformers", "cv2", "av", "numpy"} & set(loaded)
