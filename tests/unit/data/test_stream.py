"""Rows that stay in their file, and streams of them: the same everywhere, each sample once, continued anywhere."""

import json
import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from owlcap.data.row_file import Joined, RowFile
from owlcap.data.rows import read_rows
from owlcap.data.stream import SampleStream, StreamPlace
from owlcap.errors import DataError


def row(name: str) -> dict:
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": f"It is {name}, é."}]
    return {"id": name, "messages": messages, "videos": [f"{name}.mp4"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [json.dumps(row(f"r{number}"), ensure_ascii=False) for number in range(11)]
    lines.insert(4, "")  # an empty line is no row
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))  # and the last one has no end
    return path


def ids(stream: SampleStream, count: int) -> list[str]:
    return [sample.id for sample, _ in islice(stream, count)]


def test_a_row_file_gives_the_samples_that_read_rows_does(data: Path) -> None:
    rows = RowFile(data)

    assert list(rows) == read_rows(data)
    assert rows[-1].id == "r10"
    assert [sample.id for sample in rows[2:9:3]] == ["r2", "r5", "r8"]
    with pytest.raises(IndexError):
        rows[11]


def test_a_row_file_travels_to_other_processes(data: Path) -> None:
    assert list(pickle.loads(pickle.dumps(RowFile(data)))) == read_rows(data)


def test_a_file_that_was_changed_meanwhile_is_refused(data: Path) -> None:
    sent = pickle.dumps(RowFile(data))
    data.write_text(json.dumps(row("other")))

    with pytest.raises(DataError, match="not the one"):
        pickle.loads(sent)


def test_bad_rows_are_found_when_the_file_is_opened(data: Path) -> None:
    with data.open("a") as file:
        file.write("\n{broken")
    with pytest.raises(DataError) as caught:
        RowFile(data)
    assert caught.value.where == f"{data}:13"


def test_an_id_that_is_used_twice_is_found(data: Path) -> None:
    with data.open("a") as file:
        file.write("\n" + json.dumps(row("r7")))
    with pytest.raises(DataError, match="twice") as caught:
        RowFile(data)
    assert (caught.value.where, "line 9 " in str(caught.value.allowed)) == (f"{data}:13", True)


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own(data: Path) -> None:
    rows = RowFile(data)

    first, second = ids(SampleStream(rows, seed=3), 22)[:11], ids(SampleStream(rows, seed=3), 22)[11:]

    assert sorted(first) == sorted(second) == sorted(sample.id for sample in rows)
    assert first != second
    assert first == ids(SampleStream(rows, seed=3), 11)
    assert first != ids(SampleStream(rows, seed=4), 11)


def test_without_a_seed_the_order_is_that_of_the_file(data: Path) -> None:
    assert ids(SampleStream(RowFile(data), seed=None), 3) == ["r0", "r1", "r2"]


def test_ranks_share_an_epoch_out(data: Path) -> None:
    rows = RowFile(data)
    shares = [ids(SampleStream(rows, 3, rank, 3), 3) for rank in range(3)]

    whole = ids(SampleStream(rows, 3), 9)
    assert [name for turn in zip(*shares, strict=True) for name in turn] == whole


@pytest.mark.parametrize("done", [0, 1, 5, 10, 11, 12, 25])
def test_a_stream_continues_from_any_place(data: Path, done: int) -> None:
    rows = RowFile(data)
    *_, (_, place) = [(None, StreamPlace()), *islice(SampleStream(rows, 3), done)]

    assert ids(SampleStream(rows, 3, place=place), 6) == ids(SampleStream(rows, 3), done + 6)[done:]


def test_a_place_goes_with_another_number_of_ranks(data: Path) -> None:
    rows = RowFile(data)
    (*_, (_, place)) = islice(SampleStream(rows, 3, rank=1, num_ranks=4), 1)

    rest = [ids(SampleStream(rows, 3, rank, 2, place), 3) for rank in range(2)]

    assert [name for turn in zip(*rest, strict=True) for name in turn] == ids(SampleStream(rows, 3), 10)[4:]


def test_more_ranks_than_samples_are_refused(data: Path) -> None:
    with pytest.raises(DataError, match="11 samples for 12 ranks"):
        SampleStream(RowFile(data), 0, 0, 12)


def test_joined_rows_are_counted_through(data: Path) -> None:
    rows = RowFile(data)
    joined = Joined(rows, [], rows[:2])

    assert [sample.id for sample in joined] == [*(f"r{number}" for number in range(11)), "r0", "r1"]
    assert [sample.id for sample in joined[9:13]] == ["r9", "r10", "r0", "r1"]
    assert joined[-1].id == "r1"
    with pytest.raises(IndexError):
        joined[13]


@pytest.mark.parametrize("few", ["--rows=0", "--ranks=0", "--words=0", "--read-all=0"])
def test_the_benchmark_refuses_too_few_of_anything(few: str) -> None:
    script = Path(__file__).parents[3] / "benchmarks" / "data_stream.py"

    ended = subprocess.run([sys.executable, str(script), few], capture_output=True, text=True)

    assert ended.returncode == 2
    assert f"argument {few.removesuffix('=0')}: 0 is too few; allowed: " in ended.stderr
