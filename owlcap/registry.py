"""Plug-ins by name: rewards, decoders, pose sources.

Three ways to provide one, in the order in which a name is looked up:

1. ``path/to/file.py:name``: the object `name` of that file, executed once a process. Never a bare module
   name, so that a user's ``rewards.py`` cannot be confused with a package of this project.
2. ``@register("reward", "name")`` in a module that this process has imported.
3. an entry point of an installed package, e.g. ``[project.entry-points."owlcap.rewards"] name = "module:object"``.

Rewards are built inside Ray actors, which are given what the decorator made known to the driver (`registered`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar

from owlcap.errors import ConfigError

Kind = Literal["reward", "decoder", "pose_source"]
T = TypeVar("T")

ENTRY_POINT_GROUPS: dict[Kind, str] = {
    "reward": "owlcap.rewards",
    "decoder": "owlcap.decoders",
    "pose_source": "owlcap.pose_sources",
}
FILE_MODULE = "owlcap_plugin_"  # begins the private module name of a plug-in's file
_registered: dict[Kind, dict[str, object]] = {kind: {} for kind in ENTRY_POINT_GROUPS}


def register(kind: Kind, name: str) -> Callable[[T], T]:
    """Decorator that makes a class or function known as `name`; importing the same module twice is harmless.

    Raises:
        ConfigError: another object already has this name.
    """

    def add(plugin: T) -> T:
        known = _registered[kind].get(name)
        if known is not None and _origin(known) != _origin(plugin):
            raise ConfigError(
                f'two {_words(kind)}s are called "{name}"',
                where=f"{_origin(known)} and {_origin(plugin)}",
                cure="rename one of them",
            )
        _registered[kind][name] = plugin
        return plugin

    return add


def names(kind: Kind) -> tuple[str, ...]:
    """Known names of a kind, sorted: registered ones and those of installed packages."""
    return tuple(sorted({*_registered[kind], *_entry_points(kind)}))


def registered(kind: Kind, wanted: Iterable[str]) -> dict[str, object]:
    """Those of the wanted plug-ins that the decorator made known here, for a process that has not imported them.

    Ray pickles what the main script defines as code, and everything else as the name of a module to import. What a
    plug-in file registers is left out: that process knows the file by its path.
    """
    known = _registered[kind]
    return {name: known[name] for name in wanted if name in known and not _origin(known[name]).startswith(FILE_MODULE)}


def resolve(kind: Kind, name: str) -> object:
    """The plug-in called `name`, or the object at ``path/to/file.py:name``.

    Raises:
        ConfigError: unknown name, missing file, a file or entry point that cannot be imported.
    """
    if ".py:" in name:
        path, _, attribute = name.rpartition(":")
        return _from_file(kind, Path(path), attribute)
    if name in _registered[kind]:
        return _registered[kind][name]
    point = _entry_points(kind).get(name)
    if point is None:
        known = names(kind)
        raise ConfigError(
            f'unknown {_words(kind)} "{name}"',
            allowed=f"{', '.join(known)}, or path/to/file.py:name",
            cure=_nearest(name, known) or f'register it with @register("{kind}", "{name}")',
        )
    try:
        return point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f'the {_words(kind)} "{name}" cannot be imported: {error}',
            where=f"entry point {point.value} of group {point.group}",
            cure="repair or uninstall the package that provides it",
        ) from error


def _from_file(kind: Kind, path: Path, attribute: str) -> object:
    """Execute a Python file under a private module name and take one object from it."""
    where = f"{path}:{attribute}"
    if not path.is_file():
        raise ConfigError(
            f"no such file: {path}", where=where, cure=f"give the path of the {_words(kind)}'s file from {Path.cwd()}"
        )
    module = _load_module(path.resolve(), where)
    if hasattr(module, attribute):
        return getattr(module, attribute)
    offered = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
    raise ConfigError(
        f'{path} has no "{attribute}"',
        where=where,
        allowed=", ".join(offered) or "nothing: the file defines no public class or function",
        cure=_nearest(attribute, offered),
    )


def _load_module(path: Path, where: str) -> ModuleType:
    """The module of a file, executed at most once a process."""
    module_name = f"{FILE_MODULE}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file", where=where)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before execution: dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        del sys.modules[module_name]
        raise ConfigError(f"{path} cannot be imported: {error}", where=where, cure=f"try: python {path}") from error
    except BaseException:
        del sys.modules[module_name]  # a half-executed module must not be found by the next look-up
        raise
    return module


def _entry_points(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUPS[kind])}


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str | None:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else None


def _words(kind: Kind) -> str:
    return kind.replace("_", " ")


def _origin(plugin: object) -> str:
    """Module and name an object was defined under: equal for the same source imported twice."""
    return f"{getattr(plugin, '__module__', '?')}.{getattr(plugin, '__qualname__', repr(plugin))}"
