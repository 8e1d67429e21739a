"""Write docs/configuration.md from the schema: every setting with its type, default and comment.

python tools/make_reference.py            write it
python tools/make_reference.py --check    fail when it is not what would be written
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = tuple(
    ROOT / "owlcap" / f"{name}.py"
    for name in ("config", "config_cluster", "config_motion", "config_rewards", "config_data")
)
PAGE = ROOT / "docs" / "configuration.md"

INTRO = """\
# Configuration

A run is one YAML file. `owlcap sft` and `owlcap rl` take its path, or the name of a file in `configs/`:

    owlcap rl toy_grpo
    owlcap rl configs/toy_grpo.yaml seed=7 rollout.group_size=4 'rewards.terms[0].weight=2'

- `kind: sft` or `kind: rl` says which run it is. The settings of the data pipelines (`owlcap data fuse`, `examine`,
  `hmi`; [data.md](data.md)) are those of DataPipelineRun, given by `--config` and `--set`.
- `extends: base/toy.yaml` starts from another file, relative to this one; what this file says wins, key by key;
  a list replaces the whole list.
- `key.sub=value` on the command line wins over the files; the value is YAML.
- `${run_dir}/data/train.jsonl` uses another key's value; `${oc.env:HOME}` uses the environment.
- An unknown key, a wrong type or a value out of range ends the command before anything starts, with the file and
  line, what is allowed and the nearest key. Text is never read as a number: `"8"` is not `8`.
- `--dry-run` prints the resolved run; for RL also its placement, sequences a step and judge calls.
- Relative paths start at the folder the command is started in. A run is written to `run_dir/name`.

This page is generated from `owlcap/config.py` and the `config_*.py` beside it by `tools/make_reference.py`.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a section."""

    name: str
    kind: str
    default: str
    comment: str


@dataclass(frozen=True, slots=True)
class SectionDoc:
    """One class of the schema."""

    name: str
    parent: str
    text: str
    settings: tuple[Setting, ...]


def read_sections(source: str) -> Iterator[SectionDoc]:
    """Yield the schema's sections in the order of the file."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or node.name == "Section":
            continue
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
        settings = tuple(_setting(field, lines) for field in fields)
        yield SectionDoc(node.name, ast.unparse(node.bases[0]), ast.get_docstring(node) or "", settings)


def _setting(field: ast.AnnAssign, lines: list[str]) -> Setting:
    last = lines[(field.end_lineno or field.lineno) - 1]
    comment = re.search(r"(?<=\s)#\s*(.+)$", last)
    default, limits = _default(field.value)
    kind = ast.unparse(field.annotation)
    literal = re.fullmatch(r"Literal\[(.*)\]", kind)
    shown = literal[1].replace("'", "") if literal else kind
    return Setting(ast.unparse(field.target), shown + limits, default, comment[1] if comment else "")


def _default(value: ast.expr | None) -> tuple[str, str]:
    """Return the default as text ("required" without one) and the limits that pydantic's Field sets."""
    if value is None:
        return "required", ""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "Field"):
        return ast.unparse(value), ""
    given = {word.arg: ast.unparse(word.value) for word in value.keywords}
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = " and ".join(f"{sign} {given[name]}" for name, sign in signs.items() if name in given)
    factory = {"dict": "{}"}.get(given.get("default_factory", ""), "required")
    return given.get("default", factory), f", {limits}" if limits else ""


def render(sections: list[SectionDoc]) -> str:
    """Lay the page out, runs first: a table a section, linked where a setting is itself a section."""
    anchors = {section.name: section.name.lower() for section in sections}
    runs = [section for section in sections if section.name.endswith("Run")]
    parts = [INTRO]
    for section in (*runs, *(s for s in sections if s not in runs)):
        parts.append(f"## {section.name}\n\n{section.text}\n")
        if section.parent in anchors:
            parts.append(f"All of [{section.parent}](#{anchors[section.parent]}), and:\n")
        rows = ["| setting | type | default | |", "| --- | --- | --- | --- |"]
        for setting in section.settings:
            kind, default = f"`{setting.kind}`", f"`{setting.default}`"
            if setting.kind in anchors:
                kind = f"[{setting.kind}](#{anchors[setting.kind]})"
                default = default if setting.default == "required" else "its defaults"
            cells = (f"`{setting.name}`", kind, default, setting.comment)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page, or compare it."""
    page = render(list(read_sections("".join(part.read_text(encoding="utf-8") for part in SCHEMA))))
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not up to date: python tools/make_reference.py")


if __name__ == "__main__":
    main()
