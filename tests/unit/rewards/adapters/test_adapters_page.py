"""The snippets of docs/adapters.md, run as they stand but for the path of the rewards."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

REFERENCE = "A woman in a red coat walks a dog."
PAGE = Path(__file__).parents[4] / "docs" / "adapters.md"


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    path = tmp_path / "rewards.yaml"
    path.write_text("judge: {kind: lexical}\nterms: [{name: cser}]\n")
    return str(path)


def snippet(section: str, rewards: str) -> str:
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    return re.sub(r"[/\w]*rewards\.yaml", rewards, code)


def test_verl(rewards: str) -> None:
    lines = [line.removeprefix("+") for line in snippet("verl", rewards).splitlines() if line]
    compute_score: Any = get_custom_reward_fn(OmegaConf.from_dotlist(lines))
    result = asyncio.run(compute_score(data_source="d", solution_str=REFERENCE, ground_truth=REFERENCE, extra_info={}))
    assert result["score"] > 0


def test_trl(rewards: str) -> None:
    taken: dict[str, Any] = {}
    code = snippet("TRL", rewards).replace(", ...)", ")")
    exec(code, {"GRPOTrainer": lambda **settings: taken.update(settings)})
    (function,) = taken["reward_funcs"]
    (total,) = function(completions=[REFERENCE], reference=[REFERENCE])
    assert total > 0


def test_swift(rewards: str) -> None:
    orms = pytest.importorskip("swift.rewards", reason="ms-swift is not installed").orms
    exec(snippet("ms-swift", rewards), {})
    (total,) = asyncio.run(orms["owlcap"]()([REFERENCE], reference=[REFERENCE]))
    assert total > 0
