"""What `owlcap motion` says of a wrong file, and of clips that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from motion.extract import MotionFailure
from owlcap.cli.motion import failure_lines, show
from owlcap.errors import ConfigError, DataError, VideoError
from owlcap.types import Sample


def failed(id_: str, error: DataError, video: str = "") -> MotionFailure:
    return MotionFailure(Sample(id_, video, "", "", ""), type(error).__name__, str(error))


def test_a_data_file_in_the_place_of_a_video_names_the_command_that_takes_it() -> None:
    with pytest.raises(ConfigError, match="this is a data file: `show` takes a video") as error:
        show(Path("rows.jsonl"))
    assert "owlcap motion extract rows.jsonl" in str(error.value)


def test_failures_are_counted_by_reason_with_their_cure_and_a_few_clips() -> None:
    gone = [
        failed(name, VideoError("cannot be opened", where=f"{name}.mp4", cure="mend the path"), f"{name}.mp4")
        for name in "abcd"
    ]
    row = failed("rows.jsonl:3", DataError("The row has no videos.", where="rows.jsonl:3"))
    assert failure_lines([row, *gone]) == [
        "5 failed",
        "  4 x cannot be opened; cure: mend the path (a, b, c, ...)",
        "  1 x The row has no videos.; where: rows.jsonl:3 (rows.jsonl:3)",
    ]
