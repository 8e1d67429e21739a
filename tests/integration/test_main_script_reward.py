"""A reward that only the driver's own script knows works inside reward actors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import ray
from owlcap.config import ClusterSection, RewardsSection, RewardTerm
from owlcap.types import Completion, RolloutGroup, Sample
from rewards import reward
from rewards.service import RewardPool

PER_WORD = 0.5

@reward("brief")
async def brief(caption, sample):
    return -PER_WORD * len(caption.split())

if __name__ == "__main__":
    ray.init(address="local", num_cpus=2, include_dashboard=False)
    pool = RewardPool(RewardsSection(terms=(RewardTerm(name="brief"),)), ClusterSection(reward_workers=1))
    completion = Completion((1,), (-0.5,), "three short words", "stop", policy_version=0)
    group = RolloutGroup(Sample("a", "a.mp4", "", "", "A man waves."), (completion,))
    print("totals", ray.get(pool.submit(group), timeout=120).totals)
    pool.close()
    ray.shutdown()
"""


def test_a_reward_registered_in_the_main_script_is_known_to_the_actors(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert "totals (-1.5,)" in ended.stdout, ended.stderr
