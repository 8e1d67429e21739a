"""`owlcap judge-check`: what it prints, writes and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from owlcap.cli import main
from tests.judge_server import JudgeServer, Reply, answer

YES = {"units": "something", "response": "Yes", "tag": "detail"}
MODELS = Reply(json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "me"}]}))


@pytest.fixture
def lexical(tmp_path: Path) -> str:
    path = tmp_path / "rewards.yaml"
    path.write_text("judge: {kind: lexical}\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    server = JudgeServer()
    yield server
    server.close()


def run(*arguments: str) -> int:
    try:
        main(["judge-check", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def measured(path: Path) -> dict[str, float | None]:
    return {one["name"]: one["value"] for one in json.loads(path.read_text(encoding="utf-8"))["measures"]}


def test_the_table_names_the_judge_and_every_measure(lexical: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lexical, "--num-rows", "8") == 0
    told = capsys.readouterr().out
    assert told.startswith("judge lexical-english, lexical-toy, 8 rows, judged 2 times")
    for name in ("noise: std of CSER", "side:", "padding:", "length:", "injection:", "kappa", "ranking: pairs right"):
        assert name in told
    assert "asks no server" in told


def test_the_report_is_written_as_json(lexical: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lexical, "--num-rows", "4", "--out", str(tmp_path / "report.json")) == 0
    assert measured(tmp_path / "report.json")["noise: std of CSER"] == 0.0


def test_a_judge_that_says_yes_to_all_misses_limits_and_fails_only_when_strict(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "rewards.yaml"
    config.write_text(
        f"judge: {{kind: openai, model: m, base_urls: ['{server.url}']}}\ncser: {{mode: joint}}\n", encoding="utf-8"
    )
    asked = (str(config), "--num-rows", "3", "--repeats", "1", "--out", str(tmp_path / "report.json"))
    for options, code in (((), 0), (("--strict",), 1)):
        server.replies = [MODELS, answer(json.dumps({"Pred_units": [YES], "Gt_units": [YES]}))]
        assert run(*asked, *options) == code
    told = capsys.readouterr().out
    assert "MISSED" in told
    assert "requests," in told
    values = measured(tmp_path / "report.json")
    assert values["labels: Cohen's kappa"] == 0.0
    assert values["injection: share that gained"] == 0.0


@pytest.mark.parametrize("option", ["--repeats", "--num-rows"])
def test_a_number_below_1_is_refused(lexical: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lexical, option, "0") == 2
    assert f"{option} is 0" in capsys.readouterr().err
