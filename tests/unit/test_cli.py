"""The command line: what it prints where, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from rich.text import Text

from owlcap.cli import main
from owlcap.cli.app import app
from owlcap.cli.console import show_error
from owlcap.errors import ConfigError, DataError, OwlcapError


def run(*arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    told = capsys.readouterr().out
    for command in ("data", "sft", "rl", "eval", "export", "caption", "demo", "doctor"):
        assert f" {command} " in told


def helps(command: Any) -> Iterator[str]:
    """Every help text of a command and of those below it."""
    yield from filter(None, [command.help, *(getattr(parameter, "help", None) for parameter in command.params)])
    for other in getattr(command, "commands", {}).values():
        yield from helps(other)


def test_no_help_text_loses_its_brackets_to_rich() -> None:
    told = list(helps(typer.main.get_command(app)))
    assert len(told) > 50
    assert [Text.from_markup(text).plain for text in told] == [text.replace("\\[", "[") for text in told]


def test_a_dry_run_of_sft_prints_the_resolved_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sft", "toy_sft", "seed=7", "run_dir=elsewhere", "--dry-run") == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert (told["seed"], told["model"]["path"], told["kind"]) == (7, "elsewhere/base", "sft")


def test_a_dry_run_of_rl_adds_the_placement_and_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rl", "toy_grpo", "rollout.group_size=4", "--dry-run") == 0
    settings, _, plan = capsys.readouterr().out.partition("Placement")
    assert yaml.safe_load(settings)["rollout"]["group_size"] == 4
    (sequences,) = (line.split() for line in plan.splitlines() if line.split()[:1] == ["sequences"])
    assert sequences[1] == "64"  # 16 prompts x 4
    assert "judge" in plan


def test_toy_clips_are_made_where_they_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--num-train", "3", "--num-validation", "1", "--num-test", "2", "--workers", "1")
    assert run("data", "toy", str(tmp_path / "world"), *sizes) == 0
    told = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert {name: len(Path(path).read_text().splitlines()) for name, path in told.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


def test_a_users_error_goes_to_stderr_with_exit_code_2_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rl", "toy_grpo", "sede=1") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unknown key sede (value 1)\n  where: override sede=1\n")
    assert "did you mean seed?" in err
    assert "Traceback" not in err


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--debug", "rl", "toy_grpo", "sede=1") == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "\nerror: unknown key sede" in err


@pytest.mark.parametrize(("command", "config", "other"), [("sft", "toy_grpo", "rl"), ("rl", "toy_sft", "sft")])
def test_a_run_of_the_other_kind_names_the_command_to_use(
    capsys: pytest.CaptureFixture[str], command: str, config: str, other: str
) -> None:
    assert run(command, config) == 2
    assert f"cure: owlcap {other} {config}" in capsys.readouterr().err


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sft", "toy_sft", "--resum") == 2
    assert "--resume" in capsys.readouterr().err


def test_settings_without_a_config_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", "captions", str(tmp_path), "data.jsonl", "--set", "seed=1") == 2
    assert "--config" in capsys.readouterr().err


def test_an_error_raised_in_an_actor_is_told_as_the_actor_raised_it(capsys: pytest.CaptureFixture[str]) -> None:
    class FromActor(OwlcapError):  # the form in which Ray hands on an actor's error
        def __init__(self, cause: OwlcapError) -> None:
            super().__init__("a page of remote traceback")
            self.cause = cause

    show_error(FromActor(DataError("the row has no video", where="train.jsonl:3")))
    assert capsys.readouterr().err == "error: the row has no video\n  where: train.jsonl:3\n"


def test_markup_in_an_error_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(ConfigError("rewards.terms[0] is [red]", allowed="a section"))
    assert capsys.readouterr().err == "error: rewards.terms[0] is [red]\n  allowed: a section\n"


@pytest.mark.parametrize(
    "command",
    [
        ["score", "c.jsonl", "--reward", "r.yaml"],
        ["score", "c.jsonl", "--reward", "r.yaml", "--resume"],
        ["compare", "a.yaml", "b.yaml", "c.jsonl"],
        ["judge-check", "r.yaml"],
        ["eval", "captions", "c.jsonl", "d.jsonl"],
    ],
)
def test_an_out_that_is_a_folder_is_refused_before_anything_is_done(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "--out cannot be written: Is a directory" in capsys.readouterr().err
