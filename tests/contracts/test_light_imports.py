"""Vocabulary, configuration and the front door start without the heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "vllm", "deepspeed", "verl", "transformers", "torchvision", "tensorboard")
LIGHT_MODULES = (
    "owlcap",
    "owlcap.types",
    "owlcap.errors",
    "owlcap.config",
    "owlcap.config_io",
    "owlcap.registry",
    "owlcap.metrics",
    "owlcap.runs",
    "owlcap.logging",
    "owlcap.cli",
    "owlcap.doctor",
)
REPORT = "import json, sys; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def loaded_by(code: str) -> set[str]:
    """Run code in a new interpreter and return the top-level modules it has loaded."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    assert loaded_by(f"import {module}") & set(HEAVY) == set()


@pytest.mark.parametrize("module", ["owlcap.types", "owlcap.errors"])
def test_the_vocabulary_loads_no_library_at_all(module: str) -> None:
    # What an interpreter loads by itself (.pth files of editable installs and the like) does not count.
    beside = {name for name in loaded_by(f"import {module}") - loaded_by("") if name not in sys.stdlib_module_names}
    assert beside == {"owlcap"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["rl", "--help"], ["eval", "captions", "--help"], ["sft", "toy_sft", "--dry-run"]],
    ids=" ".join,
)
def test_a_command_parses_before_it_loads(arguments: list[str]) -> None:
    ended_well = "except SystemExit as end:\n    assert not end.code"
    code = f"from owlcap.cli import main\ntry:\n    main({arguments!r})\n{ended_well}"
    loaded = loaded_by(code)
    assert loaded & set(HEAVY) == set()
    if "--help" in arguments:  # help reads no configuration either: it is there at once
        assert loaded & {"numpy", "omegaconf", "yaml"} == set()
