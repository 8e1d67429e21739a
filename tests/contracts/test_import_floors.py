"""The import rule of `make check` finds what it is there for."""

from __future__ import annotations

import pytest
from grimp import ImportGraph

from tools.import_floors import FloorsContract


@pytest.fixture
def contract() -> FloorsContract:
    """A contract with two floors: `low` and `high.base` below, the rest of `high` above."""
    return FloorsContract("floors", {}, {"floors": ["low high.base", "high"]})


def graph(*imports: tuple[str, str], modules: tuple[str, ...] = ()) -> ImportGraph:
    made = ImportGraph()
    for module in ("low", "low.part", "high", "high.base", "high.top", "torch", *modules):
        made.add_module(module)
    for importer, imported in imports:
        made.add_import(importer=importer, imported=imported, line_number=3, line_contents="")
    return made


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("high.top", "low.part"), ("high.top", "high"), ("high.base", "low"), ("low", "low.part"), ("low", "torch")],
)
def test_an_import_from_the_same_floor_or_below_is_kept(contract: FloorsContract, importer: str, imported: str) -> None:
    assert contract.check(graph((importer, imported)), verbose=False).kept


@pytest.mark.parametrize(("importer", "imported"), [("low.part", "high.top"), ("high.base", "high")])
def test_an_import_from_above_breaks_it_and_is_named(contract: FloorsContract, importer: str, imported: str) -> None:
    check = contract.check(graph((importer, imported)), verbose=False)
    assert not check.kept
    assert check.metadata["upward"] == [f"{importer} (floor 0, line 3) imports {imported} (floor 1)"]


def test_only_whole_names_count(contract: FloorsContract) -> None:
    # `lower` merely starts with the letters of `low`: it is another root, outside the project.
    assert contract.check(graph(("low", "lower"), modules=("lower",)), verbose=False).kept


def test_a_module_that_no_floor_names_breaks_it() -> None:
    narrow = FloorsContract("floors", {}, {"floors": ["low.part high"]})
    check = narrow.check(graph(), verbose=False)
    assert check.metadata["homeless"] == ["low"]
    assert not check.kept
