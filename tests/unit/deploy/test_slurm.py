"""deploy/slurm.sh, run with stand-ins for Slurm's and Ray's commands that write down how they were called."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from owlcap.config import RlRun
from owlcap.config_io import load_run

SCRIPT = Path(__file__).parents[3] / "deploy" / "slurm.sh"
NODES = ("node-0", "node-1")
WRITE_DOWN = 'echo "$(basename "$0") $*" >> "$CALLS"\n'
STAND_INS = {
    "srun": WRITE_DOWN,
    "ray": WRITE_DOWN,
    "python": WRITE_DOWN,
    # The judge answers when it and all nodes have been started.
    "curl": '[ "$(grep -c ^srun "$CALLS")" -ge 3 ] || exit 1\n' + WRITE_DOWN,
    "scontrol": WRITE_DOWN + f'[ "$1" != show ] || printf "%s\\n" {" ".join(NODES)}\n',
    # Says that it has begun, and ends as the real one does when it is told to.
    "owlcap": """trap 'echo checkpoint >> "$CALLS"; kill $!; exit 143' TERM
        printf '%s\\n' "$@" > "$BEGUN"
        [ -z "$EXIT_CODE" ] || exit "$EXIT_CODE"
        sleep 600 & wait""",
}


@dataclass
class Job:
    """The script in a folder of its own."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self, *overrides: str, exit_code: str = "") -> list[str]:
        """Submit; the arguments of `owlcap`, once it runs."""
        environment = self.environment | {"EXIT_CODE": exit_code}
        self.process = subprocess.Popen(["bash", str(SCRIPT), *overrides], env=environment, cwd=self.folder)
        return (self.folder / "begun").read_text().splitlines()

    def end(self, number: int | None = None) -> int:
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def started(self, command: str) -> str:
        """How `srun` was told to start a command."""
        (call,) = (call for call in self.calls if call.startswith("srun") and command in call)
        return call


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, lines in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{lines}")
        (programs / name).chmod(0o755)
    os.mkfifo(tmp_path / "begun")
    environment = os.environ | {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node-[0-1]",
        "SLURM_JOB_ID": "7",
        "READY_DEADLINE_S": "20",
        "SHARED": str(tmp_path / "shared"),
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "BEGUN": str(tmp_path / "begun"),
    }
    started = Job(tmp_path, environment)
    yield started
    if started.process is not None and started.process.poll() is None:
        started.process.terminate()
        started.process.wait(timeout=60)


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_the_run_loads_and_fits_its_nodes(job: Job) -> None:
    kind, config, *overrides = job.start("seed=7", exit_code="0")
    assert job.end() == 0
    run = load_run(config, overrides)
    assert isinstance(run, RlRun)
    assert (kind, run.seed, run.cluster.num_nodes) == ("rl", 7, len(NODES))
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", SCRIPT.read_text(), re.MULTILINE))
    assert int(directives["nodes"]) == len(NODES)
    gpus_a_node = int(directives["gpus-per-node"])
    assert "CUDA_VISIBLE_DEVICES" not in job.started("ray start --head")
    assert gpus_a_node == run.cluster.learner_ranks * run.cluster.gpus_per_learner
    rollout, judge = (
        re.findall(r"CUDA_VISIBLE_DEVICES=([\d,]+)", job.started(command))[0].split(",")
        for command in ("ray start --address", "vllm serve")
    )
    assert len(rollout) == run.cluster.rollout_workers * run.cluster.gpus_per_rollout
    assert sorted(rollout + judge) == [str(number) for number in range(gpus_a_node)]


def test_every_node_joins_the_first_and_the_judge_is_where_the_run_asks(job: Job) -> None:
    _, config, *overrides = job.start(exit_code="0")
    job.end()
    assert "--nodelist=node-0 " in job.started("ray start --head --port=6379")
    assert "--nodelist=node-1 " in job.started("ray start --address=node-0:6379")
    run = load_run(config, overrides)
    assert isinstance(run, RlRun)
    assert run.rewards.judge.base_urls == ("http://node-1:8000/v1",)
    judge = job.started("vllm serve")
    assert f"--served-model-name {run.rewards.judge.model}" in judge
    assert "--nodelist=node-1 " in judge


def test_the_run_waits_for_the_nodes_and_the_judge(job: Job) -> None:
    job.start(exit_code="0")
    job.end()
    assert "python tools/wait_for_nodes.py 2" in job.calls
    assert any(call.startswith("curl") and call.endswith("http://node-1:8000/health") for call in job.calls)


def test_a_run_with_a_checkpoint_is_gone_on_with(job: Job) -> None:
    assert "--resume" not in job.start(exit_code="0")
    job.end()
    (job.folder / "shared/runs/qwen2_5_vl_7b_grpo_multinode/checkpoints/step-00000010").mkdir(parents=True)
    assert job.start(exit_code="0")[-1] == "--resume"
    job.end()


def test_a_configuration_by_path_and_a_name_of_ones_own_find_their_checkpoints(job: Job) -> None:
    (job.folder / "shared/runs/toy_grpo/checkpoints/step-00000010").mkdir(parents=True)
    (job.folder / "shared/runs/mine/checkpoints/step-00000010").mkdir(parents=True)
    for setting in ({"CONFIG": "configs/toy_grpo.yaml"}, {"CONFIG": "toy_sft", "NAME": "mine"}):
        job.environment.update(setting)
        command = job.start(exit_code="0")
        job.end()
        assert command[-1] == "--resume"
        assert f"name={setting.get('NAME', 'toy_grpo')}" in command


def test_the_signal_before_the_end_reaches_the_run_and_the_job_is_queued_again(job: Job) -> None:
    job.start()
    assert job.end(signal.SIGTERM) == 143
    assert job.calls[-2:] == ["checkpoint", "scontrol requeue 7"]


def test_a_run_that_failed_is_not_queued_again(job: Job) -> None:
    job.start(exit_code="2")
    assert job.end() == 2
    assert not any("requeue" in call for call in job.calls)
