"""HTML pages in one file each: what every page of owlcap shares. Nothing is loaded from a network.

A page is a template `NAME.html.j2` that extends "page.html.j2" and fills its blocks `title`, `summary`, `links` and
`main`; a `NAME.css` and a `NAME.js` beside it are put into the page. "macros.html.j2" has tables, notes and tiles.

    env = environment(Path(__file__).parent)
    html = render_page(env, "run", {"run": run})

Everything that a template prints is escaped. A page's own script is allowed by its hash and no other runs, so that a
caption that got through as markup would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup

SHARED = Path(__file__).parent
MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"  # where a figure is not there


def environment(folder: Path) -> Environment:
    """Templates of `folder` and the shared ones, with the filters that pages print numbers with."""
    env = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"number": number, "signed": signed, "percent": percent, "duration": duration}
    return env


def render_page(env: Environment, name: str, context: Mapping[str, object]) -> str:
    """The whole page of the template `name`.html.j2."""
    script = _source(env, f"{name}.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Only text of the package itself is trusted: the style and the script.
    shared = {
        "style": Markup(_source(env, "page.css") + _source(env, f"{name}.css")),
        "script": Markup(script),
        "script_source": f"'sha256-{digest}'" if script else "'none'",
    }
    return env.get_template(f"{name}.html.j2").render(shared | dict(context))


def write_page(html: str, path: Path) -> None:
    """Write a page through a temporary file; what no file can hold (half a surrogate pair) becomes a question mark."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(html.encode("utf-8", errors="replace"))
    temporary.replace(path)


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits: 0.3333, 12.5, 1,234,567, 3.1e-07; "–" for None."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    else:
        size = math.floor(math.log10(abs(value)))
        text = f"{value:.{digits - 1}e}" if not -5 < size < 10 else f"{value:,.{max(0, digits - 1 - size)}f}"
    return text.replace("-", MINUS, 1) if value < 0 else text


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign: +0.25, −1.30; "–" for None."""
    return NOTHING if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share of 1: 12.5 %, 0.3 %."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.42 s, 12 s, 3 min 20 s, 5 h 12 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _source(env: Environment, name: str) -> str:
    assert env.loader is not None
    try:
        return env.loader.get_source(env, name)[0]
    except TemplateNotFound:
        return ""
