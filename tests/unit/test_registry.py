"""Plug-ins by name, entry point and file."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from owlcap import registry
from owlcap.errors import ConfigError
from owlcap.registry import names, register, resolve


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of one test are not seen by the next."""
    monkeypatch.setattr(registry, "_registered", {kind: {} for kind in registry.ENTRY_POINT_GROUPS})


def test_a_registered_object_is_found_by_its_name():
    @register("reward", "bright")
    class Bright: ...

    assert resolve("reward", "bright") is Bright
    assert "bright" in names("reward")
    assert "bright" not in names("decoder")


def test_registering_the_same_source_twice_is_harmless_but_two_owners_are_an_error():
    def first() -> None: ...

    def second() -> None: ...

    register("reward", "taken")(first)
    register("reward", "taken")(first)
    with pytest.raises(ConfigError, match='two rewards are called "taken"'):
        register("reward", "taken")(second)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    register("pose_source", "vitpose")(object())
    with pytest.raises(ConfigError) as caught:
        resolve("pose_source", "vitpos")
    assert 'unknown pose source "vitpos"' in str(caught.value)
    assert "vitpose" in (caught.value.allowed or "")
    assert caught.value.cure == 'did you mean "vitpose"?'


def test_a_file_is_executed_once_and_gives_the_named_object(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text("count = []\ncount.append(1)\ndef brief(): ...\n")
    brief = resolve("reward", f"{path}:brief")
    assert callable(brief)
    assert resolve("reward", f"{path}:brief") is brief
    assert resolve("reward", f"{path}:count") == [1]


def test_a_file_may_define_dataclasses_with_postponed_annotations(tmp_path: Path):
    path = tmp_path / "shapes.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass(kw_only=True)\nclass Point:\n    x: int = 3\n"
    )
    assert resolve("reward", f"{path}:Point")().x == 3  # type: ignore[operator]


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        resolve("reward", f"{tmp_path}/absent.py:brief")


def test_a_missing_name_lists_what_the_file_offers(tmp_path: Path):
    path = tmp_path / "offers.py"
    path.write_text("def brief(): ...\ndef _private(): ...\n")
    with pytest.raises(ConfigError) as caught:
        resolve("reward", f"{path}:breif")
    assert caught.value.allowed == "brief"
    assert caught.value.cure == 'did you mean "brief"?'


@pytest.mark.parametrize("source", ["import no_such_module_of_mine\n", "def broken(:\n"])
def test_a_file_that_cannot_be_imported_is_a_config_error_each_time(tmp_path: Path, source: str):
    path = tmp_path / "broken.py"
    path.write_text(source)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"broken\.py cannot be imported"):
            resolve("reward", f"{path}:brief")


def test_a_fault_in_the_file_keeps_its_own_traceback_and_leaves_no_half_module(tmp_path: Path):
    path = tmp_path / "faulty.py"
    path.write_text("def brief(): ...\n1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            resolve("reward", f"{path}:brief")


def test_an_entry_point_of_an_installed_package_is_found(monkeypatch: pytest.MonkeyPatch):
    point = importlib.metadata.EntryPoint("shortest", "builtins:min", "owlcap.rewards")
    lost = importlib.metadata.EntryPoint("lost", "no_such_module_of_mine:f", "owlcap.rewards")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point, lost] if group == "owlcap.rewards" else [])
    assert resolve("reward", "shortest") is min
    assert names("reward") == ("lost", "shortest")
    with pytest.raises(ConfigError, match='the reward "lost" cannot be imported'):
        resolve("reward", "lost")
