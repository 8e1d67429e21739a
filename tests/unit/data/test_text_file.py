"""Files of rows as editors save them: every reader of rows takes or refuses the same ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from owlcap.data.formats.reading import Found, read_file
from owlcap.data.overlap import marks_of_benchmark
from owlcap.data.row_file import RowFile
from owlcap.data.rows import read_rows
from owlcap.errors import DataError

TEXT = "".join(
    json.dumps(
        {
            "id": f"r{number}",
            "messages": [{"role": "user", "content": "Was?"}, {"role": "assistant", "content": f"Häschen {number}."}],
            "videos": [f"{number}.mp4"],
        },
        ensure_ascii=False,
    )
    + "\n"
    for number in range(3)
)


def raw_captions(path: Path) -> list[str]:
    return [found.row["messages"][1]["content"] for found in read_file(path) if isinstance(found, Found)]


READERS: dict[str, Callable[[Path], Sequence[str]]] = {
    "import": raw_captions,
    "check and evaluation": lambda path: [sample.caption for sample in read_rows(path)],
    "training": lambda path: [sample.caption for sample in RowFile(path)],
}
OTHERS = {"UTF-16": "utf-16", "UTF-16LE": "utf-16-le", "UTF-16BE": "utf-16-be"}


@pytest.mark.parametrize("reader", READERS)
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, reader: str) -> None:
    (tmp_path / "rows.jsonl").write_text(TEXT, encoding="utf-8-sig")
    assert READERS[reader](tmp_path / "rows.jsonl") == ["Häschen 0.", "Häschen 1.", "Häschen 2."]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("reader", [*READERS.values(), marks_of_benchmark])
def test_utf_16_is_one_error_that_names_its_cure(tmp_path: Path, reader: Callable[[Path], object], name: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(TEXT.encode(OTHERS[name]))

    with pytest.raises(DataError, match=f"not UTF-8 but {name}.") as caught:
        reader(tmp_path / "rows.jsonl")

    assert caught.value.where == str(tmp_path / "rows.jsonl")
    assert f"iconv -f {name} -t UTF-8" in str(caught.value.cure)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n"])
@pytest.mark.parametrize("reader", [READERS["check and evaluation"], READERS["training"]])
def test_a_file_without_a_row_is_an_error(tmp_path: Path, reader: Callable[[Path], object], content: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="has no rows"):
        reader(tmp_path / "rows.jsonl")
