"""`owlcap doctor`: what each check finds on a good and on a broken machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from owlcap import doctor
from owlcap.doctor import (
    Finding,
    check_import,
    check_judge_cache,
    check_packages,
    check_versions,
    check_vllm_plugin,
    render,
)

ROOT = Path(__file__).resolve().parents[2]


def test_this_projects_packages_are_found() -> None:
    assert {finding.status for finding in check_packages()} == {"ok"}


def test_a_package_of_the_same_name_from_elsewhere_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\nfrom owlcap.doctor import *\n"
    code += "print(render(check_packages()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    (failure,) = (line for line in done.stdout.splitlines() if line.startswith("fail"))
    assert failure.split() == ["fail", "package", "rl", str(tmp_path / "rl" / "__init__.py")]
    assert "another `rl` shadows" in done.stdout


def test_this_environment_has_the_pinned_versions() -> None:
    assert {finding.check: finding.status for finding in check_versions() if finding.status != "ok"} == {}


@pytest.mark.parametrize(("found", "status"), [(None, "fail"), ("1.0", "warn")])
def test_another_version_is_told_with_the_pinned_one(
    monkeypatch: pytest.MonkeyPatch, found: str | None, status: str
) -> None:
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: found if name == "ray" else real(name))
    (finding,) = (finding for finding in check_versions() if finding.status != "ok")
    assert (finding.check, finding.status, finding.found) == ("version ray", status, str(found))
    assert "pinned is 2.60" in finding.cure


def test_a_module_that_cannot_be_imported_is_told_with_its_own_reason() -> None:
    finding = check_import("no_such_module")
    assert (finding.status, finding.found) == ("fail", "ModuleNotFoundError: No module named 'no_such_module'")
    assert check_import("json").status == "ok"


def test_the_table_tells_a_cure_only_where_one_is_needed() -> None:
    findings = [Finding("disk", "ok", "9 GiB", "make room"), Finding("import x", "fail", "broken", "install it")]
    assert render(findings) == (
        "ok    disk      9 GiB\nfail  import x  broken\n                install it\n1 ok, 0 warn, 1 fail"
    )


@pytest.mark.parametrize(("network", "status"), [(None, "ok"), ("nfs4", "warn")])
def test_a_judge_cache_on_a_network_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str | None, status: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(doctor, "network_file_system", lambda _: network)
    finding = check_judge_cache()
    assert finding.status == status
    assert str(tmp_path / "not" / "yet" / "owlcap" / "judge.sqlite") in finding.found
    assert not (tmp_path / "not").exists()


def test_vllm_finds_the_motion_models_class_where_the_project_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_vllm_plugin().status == "ok"
    monkeypatch.setattr(doctor, "entry_points", lambda group: ())
    finding = check_vllm_plugin()
    assert finding.status == "warn"
    assert "make setup" in finding.cure
