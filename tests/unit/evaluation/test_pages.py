"""What all pages share: numbers, escaping, the page's own script and no other."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from pathlib import Path

import pytest

from owlcap.evaluation.pages import duration, environment, number, percent, render_page, signed, write_page

TEMPLATE = """{% extends "page.html.j2" %}{% import "macros.html.j2" as ui %}
{% block title %}{{ name }}{% endblock %}
{% block main %}{{ ui.table(["clip", "cser"], [[name, 1.5 | number]], "Figures") }}{% endblock %}"""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (1234567.0, "1,234,567"),
        (1 / 3, "0.3333"),
        (12.345, "12.35"),
        (3.14159e-7, "3.142e-07"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_four_digits_or_are_whole(value: float, text: str) -> None:
    assert number(value) == text


def test_what_is_below_zero_has_a_minus_sign_and_what_is_missing_a_dash() -> None:
    assert number(-0.25, 2) == "\N{MINUS SIGN}0.25"
    assert number(None) == signed(None) == "\N{EN DASH}"
    assert (signed(0.5), signed(-1.3)) == ("+0.50", "\N{MINUS SIGN}1.30")


def test_shares_and_times_are_told_as_people_say_them() -> None:
    assert percent(0.1234) == "12.3 %"
    assert [duration(s) for s in (0.42, 12.3, 200, 18720)] == ["0.42 s", "12 s", "3 min 20 s", "5 h 12 min"]


def rendered(folder: Path, name: str) -> str:
    (folder / "mine.html.j2").write_text(TEMPLATE)
    (folder / "mine.css").write_text(".mine { color: red; }")
    (folder / "mine.js").write_text("document.title = 'ran';\n")
    return render_page(environment(folder), "mine", {"name": name})


def test_a_page_holds_its_style_and_its_script(tmp_path: Path) -> None:
    page = rendered(tmp_path, "a clip")
    assert ".mine { color: red; }" in page
    assert "<script>document.title = 'ran';\n</script>" in page


def test_only_the_pages_own_script_may_run_and_nothing_may_be_loaded(tmp_path: Path) -> None:
    page = rendered(tmp_path, "a clip")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in unescape(page)
    assert "default-src 'none'" in page


def test_a_page_without_a_script_allows_none(tmp_path: Path) -> None:
    (tmp_path / "still.html.j2").write_text('{% extends "page.html.j2" %}')
    assert "script-src 'none'" in unescape(render_page(environment(tmp_path), "still", {}))


def test_what_a_template_prints_is_escaped(tmp_path: Path) -> None:
    page = rendered(tmp_path, "<b>bold</b>")
    assert "<b>bold" not in page
    assert page.count("&lt;b&gt;bold&lt;/b&gt;") == 2


def test_half_a_surrogate_pair_does_not_stop_a_page_from_being_written(tmp_path: Path) -> None:
    write_page("<p>\ud83d</p>", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "<p>?</p>"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
