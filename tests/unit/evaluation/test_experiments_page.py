"""docs/reward-experiments.md shows what its commands print."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path

import pytest

from owlcap.cli import main

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", ["score", "compare"])
def test_the_page_shows_what_the_command_prints(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "reward-experiments.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(f"    owlcap {command} "))
    with pytest.raises(SystemExit):
        main(shlex.split(line)[1:])
    assert textwrap.indent(capsys.readouterr().out.rstrip(), "    ") in page
