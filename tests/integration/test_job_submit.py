"""`ray job submit --working-dir .`: what is uploaded, and that the uploaded code is what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
# Run as the job: what is there, whose code the driver and an actor import, and what `owlcap` says of a run.
ENTRYPOINT = """
import json, os, subprocess
import ray
import owlcap.config, rl.figures

@ray.remote(num_cpus=0, runtime_env={"env_vars": {"OWLCAP_LOGS": "/tmp"}})  # as actors of a run are started
class Actor:
    def where(self):
        import rewards.service
        return rewards.service.__file__

ray.init("auto", log_to_driver=False)
there = ray.get(Actor.remote().where.remote())
shown = subprocess.run(["owlcap", "rl", "toy_grpo", "seed=7", "--dry-run"], capture_output=True, text=True)
here = os.getcwd()
modules = [owlcap.config.__file__, rl.figures.__file__, there]
print("JOB " + json.dumps({"files": sorted(os.listdir()), "here": here, "modules": modules, "plan": shown.stdout}))
"""


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a local cluster that takes jobs, beside any other Ray of this machine."""
    monkeypatch.setenv("PATH", f"{PROGRAMS}:{os.environ['PATH']}")  # of the cluster's processes
    ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
    head = {"num_cpus": 2, "include_dashboard": True, **ports}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    context = ray.init(address=cluster.address, log_to_driver=False)
    yield f"http://{context.dashboard_url}"
    ray.shutdown()
    cluster.shutdown()


def submitted(dashboard: str, *entrypoint: str) -> str:
    """What a job printed. A cluster that has just started refuses jobs until its agents have reported."""
    command = ["ray", "job", "submit", "--address", dashboard, "--working-dir", ".", "--", *entrypoint]
    for _ in range(60):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        if "No available agent" not in done.stdout + done.stderr:
            break
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_job_runs_the_code_that_was_uploaded_and_no_environment_is(dashboard: str) -> None:
    printed = submitted(dashboard, "python", "-c", ENTRYPOINT)
    (told,) = (line for line in printed.splitlines() if line.startswith("JOB "))
    job = json.loads(told.removeprefix("JOB "))
    assert {"owlcap", "rewards", "rl", "rollout", "sft", "configs"} <= set(job["files"])
    assert not {".venv", ".git", "runs", "tests", "docs"} & set(job["files"])
    assert all(module.startswith(f"{job['here']}/") for module in job["modules"])
    assert job["here"] != str(ROOT)
    assert "seed: 7" in job["plan"]
    assert "Placement" in job["plan"]


def test_waiting_for_nodes_ends_when_they_are_there(dashboard: str) -> None:
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    wait = [sys.executable, "tools/wait_for_nodes.py"]
    done = subprocess.run([*wait, "1"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "1 node\n", done.stderr[-2000:]
