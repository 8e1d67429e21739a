"""From YAML files and `key=value` overrides to one frozen run, and back.

    extends: base/toy.yaml  -->  this file  -->  overrides  -->  ${interpolation}  -->  SftRun | RlRun

Later layers win. Every setting that cannot be used is reported at once, with the file and line or the override
that gave it, what is allowed, and the nearest key where the key itself is unknown (`owlcap.config_problems`).
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from owlcap.config import MotionSection, RewardsSection, RlRun, Run, SftRun
from owlcap.config_data import DataPipelineRun
from owlcap.config_problems import Key, describe_invalid, spell
from owlcap.errors import ConfigError, first_line

KINDS: dict[str, type[SftRun] | type[RlRun]] = {"sft": SftRun, "rl": RlRun}
Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Layer:
    """The settings of one file, and the line each key is written on."""

    path: Path
    settings: DictConfig
    lines: dict[Key, int]

    def place(self, key: Key) -> str | None:
        """Say where this file sets `key`, or None when it does not."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else None


@dataclass(frozen=True, slots=True)
class Override:
    """One `key.sub=value` of the command line."""

    text: str
    key: Key
    value: Any

    def place(self, key: Key) -> str | None:
        """Name this override when it sets `key`, something in it, or something around it."""
        shared = min(len(key), len(self.key))
        return f"override {self.text}" if shared and key[:shared] == self.key[:shared] else None


def load_run(path_or_name: str | Path, overrides: Sequence[str] = ()) -> SftRun | RlRun:
    """Compose and check a run.

    Args:
        path_or_name: a YAML file, or the name of one in configs/ ("toy_grpo").
        overrides: `key.sub=value`, the value in YAML; they win over the files.

    Raises:
        ConfigError: no such file, broken YAML, a cycle of `extends`, or settings that the schema refuses.
    """
    path = find_config(path_or_name)
    layers = read_layers(path)
    given = [read_override(text) for text in overrides]
    merged = OmegaConf.merge(*(layer.settings for layer in layers))
    for override in given:
        _apply(override, merged)
    values = _resolve(merged, path, given)
    kind = values.get("kind")
    if kind not in KINDS:
        raise ConfigError(
            f"kind is {kind!r}" if "kind" in values else "the run has no `kind`",
            where=_place([*layers, *given], ("kind",)) or str(path),
            allowed=", ".join(KINDS),
            cure="add `kind: sft` or `kind: rl` to the file (files under configs/base/ are not runs by themselves)",
        )
    return _checked(KINDS[kind], values, path, (*layers, *given))


def load_data_run(path_or_name: str | Path | None, overrides: Sequence[str] = ()) -> DataPipelineRun:
    """Compose and check the settings of the data pipelines; None: every setting as it is by default.

    Raises:
        ConfigError: as `load_run`.
    """
    path = Path("the command line") if path_or_name is None else find_config(path_or_name)
    layers = [] if path_or_name is None else read_layers(path)
    merged = OmegaConf.merge(OmegaConf.create({}), *(layer.settings for layer in layers))
    given = [read_override(text) for text in overrides]
    for override in given:
        _apply(override, merged)
    return _checked(DataPipelineRun, _resolve(merged, path, given), path, (*layers, *given))


def load_rewards(path_or_name: str | Path, overrides: Sequence[str] = ()) -> RewardsSection:
    """Compose and check the reward settings alone: of a file that holds just them, or of an RL configuration.

    A configuration with `rewards:` or `kind: rl` is read as a whole run, of which nothing else is checked; any other
    file holds the keys of its rewards section at the top (`judge: ...`, `terms: ...`).

    Args:
        path_or_name: a YAML file, or the name of one in configs/.
        overrides: `key.sub=value`, with or without `rewards.` in front of the key.

    Raises:
        ConfigError: as `load_run`; or the file is of a run without rewards (`kind: sft`).
    """
    return _load_part("rewards", RewardsSection, ("rl",), path_or_name, overrides)


def load_motion(
    path_or_name: str | Path | None, overrides: Sequence[str] = (), below: MotionSection | None = None
) -> MotionSection:
    """Compose and check the motion settings alone: of a file that holds just them, or of a run's configuration.

    Args:
        path_or_name: a YAML file, or the name of one in configs/; None: no file.
        overrides: `key.sub=value`, with or without `motion.` in front of the key.
        below: the settings that neither of them names; None: as they are by default.

    Raises:
        ConfigError: as `load_run`.
    """
    return _load_part("motion", MotionSection, tuple(KINDS), path_or_name, overrides, below)


def _load_part(
    name: str,
    schema: type[Schema],
    kinds: tuple[str, ...],
    path_or_name: str | Path | None,
    overrides: Sequence[str],
    below: Schema | None = None,
) -> Schema:
    """One section of a run of one of these kinds, or of a file that holds nothing else."""
    path = Path("the command line") if path_or_name is None else find_config(path_or_name)
    layers = [] if path_or_name is None else read_layers(path)
    merged = OmegaConf.merge(OmegaConf.create({}), *(layer.settings for layer in layers))
    assert isinstance(merged, DictConfig)
    try:
        kind, _ = merged.get("kind"), merged.get(name)  # either may name another key
    except OmegaConfBaseException as error:
        raise _unresolved(error, path) from error
    if kind not in (None, *kinds):
        raise ConfigError(
            f"a run of kind {kind!r} has no {name}",
            where=str(path),
            allowed=f"a configuration of kind {' or '.join(kinds)}, or a file with the keys of its {name} section: "
            + ", ".join(schema.model_fields),
        )
    whole = kind in kinds or name in merged
    if below is not None:
        values = below.model_dump(mode="json")
        merged = OmegaConf.merge(OmegaConf.create({name: values} if whole else values), merged)
        assert isinstance(merged, DictConfig)
    given = [_in_part(name, read_override(text), whole) for text in overrides]
    for override in given:
        _apply(override, merged)
    section = merged.get(name, OmegaConf.create({})) if whole else merged
    if not isinstance(section, DictConfig):
        raise ConfigError(f"{name} is {section!r}", where=_place(layers, (name,)), allowed="a section of keys")
    inside: Key = (name,) if whole else ()
    return _checked(schema, _resolve(section, path, given), path, (*layers, *given), inside)


def _in_part(name: str, override: Override, whole: bool) -> Override:
    """The override with its key as the file that it goes over spells it."""
    first, *rest = override.key
    if not whole:
        return replace(override, key=tuple(rest)) if first == name and rest else override
    known = {field for run in KINDS.values() for field in run.model_fields}
    return override if first in known else replace(override, key=(name, *override.key))


def _checked(
    schema: type[Schema], values: dict[str, Any], path: Path, layers: Sequence[Layer | Override], inside: Key = ()
) -> Schema:
    """The values as a frozen section; `inside` is the key that they stand under in the layers."""
    given = " ".join(layer.text for layer in layers if isinstance(layer, Override))
    whole = f"{path} with {given}" if given else str(path)  # of settings that do not fit each other
    try:
        # Strict JSON mode: lists become tuples and whole numbers floats, but "8" is not 8 and 1 is not true.
        return schema.model_validate_json(to_json(values), strict=True)
    except ValidationError as error:
        raise describe_invalid(
            schema, error, str(path), lambda key: _place(layers, (*inside, *key)) or (None if key else whole)
        ) from error


class _Dumper(yaml.SafeDumper):
    """Quotes text that OmegaConf's loader, unlike PyYAML's, takes for a number: `0e0`."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def dump(run: Run) -> str:
    """Write a run as YAML with every setting in it; `load_run` of that file gives an equal run."""
    return yaml.dump(run.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def config_folder() -> Path:
    """Return the folder of the named configs: the source tree's, else the one that the wheel installed."""
    tree = Path(__file__).resolve().parent.parent / "configs"
    return tree if tree.is_dir() else Path(sys.prefix) / "share" / "owlcap" / "configs"


def find_config(path_or_name: str | Path) -> Path:
    """Return the file that a path or a name means.

    Raises:
        ConfigError: there is neither such a file nor such a name.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    folder = config_folder()
    named = folder / f"{path_or_name}.yaml"
    if path.suffix not in (".yaml", ".yml") and named.is_file():
        return named
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    nearest = difflib.get_close_matches(path.stem, names, n=1)
    raise ConfigError(
        f"there is no configuration {str(path_or_name)!r}",
        allowed=f"a YAML file, or a name from {folder}: {', '.join(names)}",
        cure=f"did you mean {nearest[0]}?" if nearest else None,
    )


def read_layers(path: Path, below: tuple[Path, ...] = ()) -> list[Layer]:
    """Read a file and those it extends, the lowest first. `below` are the files that led here.

    Raises:
        ConfigError: a file is missing, is not UTF-8, is not YAML or not a mapping, or extends itself.
    """
    if path.resolve() in (other.resolve() for other in below):
        chain = " -> ".join(str(file) for file in (*below, path))
        raise ConfigError("a configuration extends itself", where=chain, cure="remove one `extends`")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the configuration is not UTF-8 text", where=f"{path}, byte {error.start}") from error
    settings, lines = _parse(text, path)
    parent = settings.pop("extends", None)
    layer = Layer(path, settings, lines)
    if parent is None:
        return [layer]
    if not isinstance(parent, str):
        raise ConfigError(
            f"extends is {parent!r}",
            where=f"{path}:{lines.get(('extends',), 1)}",
            allowed="the path of one YAML file, relative to this one",
        )
    base = path.parent / parent
    if not base.is_file():
        raise ConfigError(
            f"extends names a file that does not exist: {parent}",
            where=f"{path}:{lines.get(('extends',), 1)}",
            allowed="a path relative to this file",
        )
    return [*read_layers(base, (*below, path)), layer]


def _parse(text: str, path: Path) -> tuple[DictConfig, dict[Key, int]]:
    try:
        root = yaml.compose(text)
        settings = OmegaConf.create(text) if root is None or isinstance(root, yaml.MappingNode) else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"broken YAML: {error.problem or error.context}",
            where=f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path),
            cure="check the indentation, quotes and colons near that place",
        ) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be read: {error}", where=str(path)) from error
    if not isinstance(settings, DictConfig):
        raise ConfigError("the configuration is not a mapping of keys to values", where=str(path))
    return settings, key_lines(root)


def key_lines(root: yaml.Node | None) -> dict[Key, int]:
    """Map each key of a composed YAML document, as a tuple from the top, to the line it is written on."""
    lines: dict[Key, int] = {}
    waiting: list[tuple[Key, yaml.Node | None]] = [((), root)]
    while waiting:
        key, node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                lines[(*key, str(name.value))] = name.start_mark.line + 1
                waiting.append(((*key, str(name.value)), value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*key, index)] = value.start_mark.line + 1
                waiting.append(((*key, index), value))
    return lines


def read_override(text: str) -> Override:
    """Read one `key.sub=value` of the command line; `key[0].sub=value` reaches into a list.

    Raises:
        ConfigError: there is no key, or the value is not YAML.
    """
    name, equals, value = text.partition("=")
    key = _key(name)
    if not equals or "" in key:
        raise ConfigError(f"the override {text!r} is not of the form key.sub=value", cure="for example seed=7")
    try:
        parsed = OmegaConf.to_container(OmegaConf.create(f"value: {value}"))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"the value of the override {text!r} is not YAML", cure=f"quote it: '{name}=\"...\"'"
        ) from error
    return Override(text, key, parsed["value"] if isinstance(parsed, dict) else None)


def _key(name: str) -> Key:
    parts = name.strip().replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _apply(override: Override, merged: DictConfig | ListConfig) -> None:
    try:
        OmegaConf.update(merged, spell(override.key), override.value, merge=True, force_add=True)
    except (OmegaConfBaseException, IndexError) as error:
        raise ConfigError(
            f"the override {override.text!r} does not fit the run: {first_line(error)}",
            allowed="a key of the run; a list is reached by an index that it has, or replaced as a whole",
        ) from error


def _resolve(merged: DictConfig | ListConfig, path: Path, given: Sequence[Override]) -> dict[str, Any]:
    try:
        values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _unresolved(error, path, given) from error
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def _unresolved(error: OmegaConfBaseException, path: Path, given: Sequence[Override] = ()) -> ConfigError:
    key = getattr(error, "full_key", None)
    where = f"{path}, key {key}" if key else str(path)
    return ConfigError(
        first_line(error),
        where=_place(given, _key(str(key))) or where,
        cure="`${a.b}` names another key of the same run from the top; `???` must be given as an override",
    )


def _place(layers: Sequence[Layer | Override], key: Key) -> str | None:
    """Say where a key was given: the last layer that sets it, else the last that sets the section around it."""
    for length in range(len(key), 0, -1):
        for layer in reversed(layers):
            place = layer.place(key[:length])
            if place is not None:
                return place
    return None
