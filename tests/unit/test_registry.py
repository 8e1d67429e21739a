"""Plug-ins by name, entry point and file."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from owlcap import registry
from owlcap.errors import ConfigError
from owlcap.registry import names, register, registered, resolve


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


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"value = {value}\n")
        monkeypatch.chdir(tmp_path / folder)
        assert resolve("reward", "mine.py:value") == value


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


def test_what_the_main_script_registers_can_be_sent_to_another_process(tmp_path: Path):
    """As Ray does it: pickled in the process that runs the script, known by name in one that does not."""
    sender = tmp_path / "script.py"
    sender.write_text(
        "import sys\nfrom ray import cloudpickle\nfrom owlcap.registry import register, registered\n"
        "scale = 3\n"
        "@register('reward', 'tripled')\ndef tripled(caption): return scale * len(caption)\n"
        "open(sys.argv[1], 'wb').write(cloudpickle.dumps(registered('reward', ['tripled', 'absent'])))\n"
    )
    receiver = tmp_path / "receiver.py"
    receiver.write_text(
        "import pickle, sys\nfrom owlcap.registry import register, resolve\n"
        "for name, plugin in pickle.load(open(sys.argv[1], 'rb')).items(): register('reward', name)(plugin)\n"
        "print(resolve('reward', 'tripled')('ab'))\n"
    )
    pickled = tmp_path / "plugins.pickle"
    subprocess.run([sys.executable, sender, pickled], check=True, timeout=120)
    received = subprocess.run([sys.executable, receiver, pickled], check=True, timeout=120, capture_output=True)
    assert received.stdout.decode().strip() == "6"


def test_what_a_plugin_file_registers_is_not_sent(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text("from rewards import reward\n@reward('named')\ndef brief(caption): return 1\n")
    assert resolve("reward", f"{path}:brief") is resolve("reward", "named")
    assert registered("reward", ["named", f"{path}:brief"]) == {}
