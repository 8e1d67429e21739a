"""Prompt templates: text files with $placeholders, in rewards/prompts or in the user's own folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template

from owlcap.errors import ConfigError
from rewards.replies import encodable

FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One template and the hash of its text, which is part of every cache key."""

    text: str
    hash: str

    def render(self, **values: str) -> str:
        """The prompt. Values go in as they are: captions belong into `quoted` first."""
        return Template(self.text).substitute(values)


def load_template(
    name: str, placeholders: frozenset[str], folder: str | None = None, base: Path = FOLDER
) -> PromptTemplate:
    """Read `name`.txt from `folder` if it is there, else the project's own.

    Args:
        placeholders: what the text must contain, each as $name.
        base: where the project's own are.

    Raises:
        ConfigError: no such folder, a file in it that replaces no template, an unreadable file, a placeholder that
            is missing or unknown.
    """
    file = base / f"{name}.txt"
    if folder is not None and file.name in _own_files(Path(folder).expanduser(), base):
        file = Path(folder).expanduser() / file.name
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the prompt template cannot be read: {error}", where=str(file)) from error
    template = Template(text)
    allowed = ", ".join(f"${name}" for name in sorted(placeholders))
    if not template.is_valid():
        raise ConfigError("a $ that starts no placeholder", where=str(file), allowed=f"{allowed}; write $$ for a $")
    found = frozenset(template.get_identifiers())
    if found != placeholders:
        odd = ", ".join(f"${name}" for name in sorted(found ^ placeholders))
        raise ConfigError(f"placeholders that are missing or unknown: {odd}", where=str(file), allowed=allowed)
    return PromptTemplate(text, hashlib.sha256(text.encode()).hexdigest()[:16])


def _own_files(folder: Path, base: Path) -> set[str]:
    """Templates that a user's folder replaces."""
    try:
        own = {file.name for file in folder.iterdir() if file.suffix == ".txt"}
    except OSError as error:
        raise ConfigError(
            f"no folder of prompt templates: {error.strerror or error}",
            where=str(folder),
            cure="make it, or set `prompts`, which names it, to null",
        ) from error
    known = {file.name for file in base.glob("*.txt")}
    if own - known:
        raise ConfigError(
            f"no template has this name: {', '.join(sorted(own - known))}",
            where=str(folder),
            allowed=", ".join(sorted(known)),
        )
    return own


def quoted(caption: str) -> str:
    """A caption as a JSON string: quotes and line breaks inside it cannot end it."""
    return json.dumps(encodable(caption), ensure_ascii=False)


def numbered(statements: tuple[str, ...]) -> str:
    """Statements as lines "1. ...": each a JSON string, so that none can pass for another line."""
    return "\n".join(f"{number}. {quoted(statement)}" for number, statement in enumerate(statements, start=1))
