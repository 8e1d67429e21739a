"""examples/minimal_grpo.py runs as a script, in one process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_example_takes_two_steps(tmp_path: Path) -> None:
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    toy = make_toy_world(tmp_path / "data", num_train=4, num_validation=1, num_test=1, seed=0, workers=1, progress=None)
    rows = read_rows(toy.train)
    make_tiny_model(tmp_path / "model", [text for row in rows for text in (row.caption, row.reference)], seed=0)
    sizes = ("--steps", "2", "--prompts", "2", "--group", "4", "--max-new-tokens", "16")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "minimal_grpo.py"), str(tmp_path / "model"), str(toy.train), *sizes],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    mismatches = re.findall(r"step +\d+ .* vLLM vs learner (\S+)", done.stdout)
    assert len(mismatches) == 2
    assert all(float(mismatch) < 1e-4 for mismatch in mismatches)
