"""docs/judge-check.md shows what the command prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "judge-check.md"


def test_the_page_shows_the_lexical_judges_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["judge-check", "toy_grpo"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out.rstrip("\n").splitlines()
    shown = "\n".join(f"    {line}" if line else "" for line in printed)
    assert shown in PAGE.read_text()
