"""Reward settings alone: from a file of their own, or out of a whole RL configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.config import RewardsSection, RlRun
from owlcap.config_io import load_rewards, load_run
from owlcap.errors import ConfigError


def write(folder: Path, text: str, name: str = "rewards.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_rewards(path, overrides)
    return caught.value


def test_a_file_of_the_section_s_own_keys(tmp_path: Path) -> None:
    rewards = load_rewards(write(tmp_path, "judge: {kind: openai, model: m}\nterms: [{name: cser}]\n"))
    assert (rewards.judge.kind, rewards.judge.model, len(rewards.terms)) == ("openai", "m", 1)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_rewards(write(tmp_path, "")) == RewardsSection()


def test_a_named_rl_configuration_gives_the_rewards_of_its_run() -> None:
    run = load_run("toy_grpo")
    assert isinstance(run, RlRun)
    assert load_rewards("toy_grpo") == run.rewards


def test_a_run_s_file_needs_nothing_but_its_rewards(tmp_path: Path) -> None:
    text = "model: {path: '???'}\nrewards: {cser: {match: strict}, prompts: '${folder}/p'}\nfolder: f\n"
    rewards = load_rewards(write(tmp_path, text))
    assert (rewards.cser.match, rewards.prompts) == ("strict", "f/p")


def test_a_file_extends_another_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "judge: {kind: openai, model: low, temperature: 0.1}\n", "low.yaml")
    rewards = load_rewards(write(tmp_path, "extends: low.yaml\njudge: {model: top}\n"))
    assert (rewards.judge.model, rewards.judge.temperature) == ("top", 0.1)


@pytest.mark.parametrize("text", ["cser: {match: strict}\n", "rewards: {cser: {match: strict}}\n", "kind: rl\n"])
@pytest.mark.parametrize("key", ["judge.model", "rewards.judge.model"])
def test_overrides_take_both_spellings_over_both_forms(tmp_path: Path, text: str, key: str) -> None:
    assert load_rewards(write(tmp_path, text), [f"{key}=other"]).judge.model == "other"


@pytest.mark.parametrize("text", ["judge:\n  modle: x\n", "rewards:\n  judge: {modle: x}\n"])
def test_an_unknown_key_is_told_with_its_line_and_the_nearest_key(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    error = refusal(path)
    assert "judge.modle" in error.what
    assert error.where == f"{path}:2"
    assert error.cure == "did you mean model?"


@pytest.mark.parametrize("text", ["", "kind: rl\n"])
def test_an_unknown_override_is_never_ignored(tmp_path: Path, text: str) -> None:
    error = refusal(write(tmp_path, text), "jugde.model=x")
    assert error.where == "override jugde.model=x"
    assert error.cure == "did you mean judge?"


def test_a_run_without_rewards_is_refused() -> None:
    assert "'sft'" in refusal("toy_sft").what


def test_rewards_that_are_no_section_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "rewards: [cser]\n")
    assert refusal(path).where == f"{path}:1"


def test_a_wrong_value_says_what_is_allowed(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "cser: {match: exact}\n"))
    assert error.what == "cser.match is 'exact'"
    assert error.allowed == "'lenient' or 'strict'"


def test_a_missing_configuration_is_told() -> None:
    assert "there is no configuration" in refusal("nosuch").what


def test_rewards_taken_from_a_key_that_is_not_there_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "rewards: ${gone}\n")
    assert refusal(path).where == str(path)
