"""What docs/rewards.md and its example say is what happens."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from owlcap import registry
from owlcap.config import RewardTerm
from owlcap.config_io import load_rewards
from owlcap.data.rows import read_rows
from owlcap.types import RewardBreakdown, Sample, Score
from rewards.base import Reward
from rewards.catalogue import judge_calls
from rewards.suite import make_suite
from tests.unit.rewards.scripted_model import ScriptedModel, judges_of, score

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
SAMPLE = Sample("a", "a.mp4", "", "", reference="Someone in a red shirt jumps.")


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's code in my_rewards.py; names that it registers are gone after the test."""
    known = {kind: dict(plugins) for kind, plugins in registry._registered.items()}
    monkeypatch.setattr(registry, "_registered", known)
    (tmp_path / "my_rewards.py").write_text("\n".join(snippets("python")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", snippets("yaml"))
def test_every_configuration_scores_a_group(text: str, own_folder: Path):
    (own_folder / "rewards.yaml").write_text(text)
    suite = make_suite(load_rewards(own_folder / "rewards.yaml"))
    outcomes = asyncio.run(suite.score_group(SAMPLE, [SAMPLE.reference, "Someone waves."]))
    assert all(isinstance(outcome, RewardBreakdown) for outcome in outcomes)


def test_the_named_terms_give_what_the_functions_say(own_folder: Path):
    (own_folder / "rewards.yaml").write_text(snippets("yaml")[1])
    suite = make_suite(load_rewards(own_folder / "rewards.yaml"))
    (outcome,) = asyncio.run(suite.score_group(SAMPLE, ["two words"]))
    assert isinstance(outcome, RewardBreakdown)
    assert {name: part.value for name, part in outcome.parts.items()} == {"brief": -1.0, "varied": 1.0}


def test_the_class_asks_the_judge():
    made = registry.resolve("reward", "my_rewards.py:Vivid")
    assert isinstance(made, type)
    model = ScriptedModel(lambda question: {"vivid": 5 if "bad" in question.prompt else 3})
    reward = made(judges_of(model), {})
    assert isinstance(reward, Reward)
    good, bad = score(reward, SAMPLE, "good", "bad")
    assert good == Score(0.75)
    assert not isinstance(bad, Score)


def test_the_entry_point_is_in_the_right_group(own_folder: Path, monkeypatch: pytest.MonkeyPatch):
    points = tomllib.loads(snippets("toml")[0])["project"]["entry-points"]
    assert list(points) == [registry.ENTRY_POINT_GROUPS["reward"]]
    (own_folder / "my_package").mkdir()
    (own_folder / "my_rewards.py").rename(own_folder / "my_package" / "my_rewards.py")
    monkeypatch.syspath_prepend(own_folder)
    found = [EntryPoint(name, value, group) for group, named in points.items() for name, value in named.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    assert callable(registry.resolve("reward", "brief"))


def test_the_row_is_read(own_folder: Path):
    path = own_folder / "rows.jsonl"
    path.write_text(json.dumps(json.loads(snippets("json")[0])))
    (sample,) = read_rows(path)
    assert sample.questions
    assert sample.keypoints


def test_the_catalogue_names_every_reward_and_its_calls(own_folder: Path):
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) \|$", PAGE.partition("## The catalogue")[2], re.MULTILINE))
    ours = [name for name, made in registry._registered["reward"].items() if made.__module__.startswith("rewards.")]
    assert set(ours) <= set(rows)
    (own_folder / "rewards.yaml").write_text("judge: {kind: openai, base_urls: ['http://127.0.0.1:9/v1'], model: m}")
    settings = load_rewards(own_folder / "rewards.yaml")
    for name in ours:
        terms = settings.model_copy(update={"terms": (RewardTerm(name=name),)})
        calls = f"{judge_calls(terms, 1, 0)} + {judge_calls(terms, 0, 1)}"
        assert ("none" if calls == "0 + 0" else calls) in rows[name]


def test_the_example_runs():
    command = [sys.executable, str(ROOT / "examples" / "custom_reward.py")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    first, second, third = ended.stdout.splitlines()
    assert "no_hedging 0.00, unlike_the_others 0.25)" in first
    assert "no_hedging -1.00" in second
    assert third == "unscored by unlike_the_others: the function returned None"
