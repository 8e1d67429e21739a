"""An import-linter contract: a module imports only from its own floor or from a floor below.

import-linter's own `layers` contract cannot place `rewards.service` on another layer than the rest of `rewards`.
Here each module stands on the floor of the longest prefix that names it, so one line a package and one line an
exception describe the whole project. A module that no prefix names breaks the contract: it has to be placed.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class FloorsContract(Contract):
    """Options: `floors`, a list of strings from the ground (floor 0) up, each the module prefixes of one floor."""

    type_name = "floors"

    floors = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare the floors of both ends of every import between the project's modules."""
        floor_of_prefix = {
            prefix: floor
            for floor, prefixes in enumerate(self.floors)  # type: ignore[arg-type]
            for prefix in prefixes.split()
        }
        roots = {prefix.partition(".")[0] for prefix in floor_of_prefix}
        modules = sorted(module for module in graph.modules if module.partition(".")[0] in roots)
        floor_of = {module: find_floor(module, floor_of_prefix) for module in modules}
        homeless = [module for module, floor in floor_of.items() if floor is None]
        upward = []
        for importer in modules:
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                low, high = floor_of[importer], floor_of.get(imported)
                if low is None or high is None or high <= low:
                    continue
                details = graph.get_import_details(importer=importer, imported=imported)
                line = min(int(detail["line_number"]) for detail in details)
                upward.append(f"{importer} (floor {low}, line {line}) imports {imported} (floor {high})")
        return ContractCheck(kept=not homeless and not upward, metadata={"homeless": homeless, "upward": upward})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each upward import, and each module without a floor."""
        for line in check.metadata["upward"]:
            output.print_error(f"- {line}", bold=False)
        for module in check.metadata["homeless"]:
            output.print_error(f"- {module} stands on no floor: name it in pyproject.toml", bold=False)


def find_floor(module: str, floor_of_prefix: dict[str, int]) -> int | None:
    """Return the floor of the longest prefix of `module` that has one, or None.

    A package's own `__init__` and all its modules share the package's prefix unless they are named themselves.
    """
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        floor = floor_of_prefix.get(".".join(parts[:length]))
        if floor is not None:
            return floor
    return None
