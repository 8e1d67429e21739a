"""Check what the Markdown pages say: links lead somewhere, and `owlcap`, `make` and file names exist.

python tools/check_docs.py        every problem as page:line, exit code 1 when there is one
"""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)
COMMAND = re.compile(r"(?:^ {4}|\$ |`|bin/)((?:owlcap|make) [^`#|]*)")
FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|yaml|toml|txt|md))`")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


def pages() -> list[Path]:
    """Return every page that people read, in a fixed order."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def problems(page: Path) -> Iterator[str]:
    """Yield one line a problem of a page."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT)
    for number, line in enumerate(text.splitlines(), 1):
        checks = (link_problem(page, link) for link in LINK.findall(line))
        found = [problem for problem in checks if problem]
        found += [problem for command in COMMAND.findall(line) if (problem := command_problem(command))]
        found += [f"no such file: {file}" for file in FILE.findall(line) if "/" in file and not (ROOT / file).exists()]
        for problem in found:
            yield f"{name}:{number}: {problem}"


def link_problem(page: Path, link: str) -> str | None:
    """Say what is wrong with a relative link, or None; addresses on the network are not visited."""
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"broken link: {link}"
    if anchor and anchor not in {slug(heading) for heading in HEADING.findall(target.read_text(encoding="utf-8"))}:
        return f"no such heading: {link}"
    return None


def slug(heading: str) -> str:
    """Return the anchor that Markdown renderers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def command_problem(command: str) -> str | None:
    """Say which part of an `owlcap` or `make` command line does not exist, or None."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return f"not a command line: {command}"
    if words[0] == "make":
        targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
        asked = [word for word in words[1:] if word.isalpha() and word.islower()][:1]
        return f"no such make target: {command}" if set(asked) - targets else None
    return _owlcap_problem(words[1:], command)


def _owlcap_problem(words: list[str], command: str) -> str | None:
    from owlcap.cli import app

    here = typer.main.get_command(app)
    for word in itertools.takewhile(lambda word: word != "...", words):
        if word.startswith("-"):
            known = {option for parameter in here.params for option in parameter.opts} | {"--help", "-h"}
            if word.partition("=")[0] not in known:
                return f"no such option {word}: {command}"
        elif hasattr(here, "commands"):
            commands = here.commands
            if word not in commands:
                return f"no such command {word}: {command}"
            here = commands[word]
    return None


def main() -> None:
    """Check every page."""
    found = [problem for page in pages() for problem in problems(page)]
    for problem in found:
        print(problem)
    if found:
        sys.exit(1)
    print(f"{len(pages())} pages: links, commands and file names exist")


if __name__ == "__main__":
    main()
