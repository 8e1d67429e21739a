"""The page of a benchmark's result in a real headless Chromium: no errors, no requests, it fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.evaluation.benchmarks.run import make_result, write_result
from owlcap.evaluation.benchmarks.values import Evidence, ItemScore
from tests.browser import Browser, find_browser


@pytest.mark.skipif(find_browser() is None, reason="no Chromium: run python tools/fetch_chromium.py")
def test_the_page_loads_without_errors_opens_an_item_and_fits_a_phone(tmp_path: Path) -> None:
    values = {"accuracy": 0.5, "accuracy_exact_yes": 0.5, "score": 2.0, "questions": 2.0}
    evidence = (Evidence("Who waves? a man | <script>alert(1)</script>", "no 1"),)
    scores = [ItemScore(f"short/{i}", "short", values, "A caption. " * 60, "", evidence) for i in range(3)]
    write_result(make_result("vdc", "policy", scores, judge="a judge", missing=("short/9",)), tmp_path)
    browser = Browser(tmp_path / "profile")
    try:
        for width, dark in ((1280, False), (380, True)):
            browser.open(tmp_path / "index.html", width, dark)
            browser.run("document.querySelector('details summary').click()")
            assert browser.run("document.querySelector('details').open")
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert "short/9" in browser.run("document.querySelector('.notes').textContent")
            assert browser.problems == []
            assert browser.requests == [(tmp_path / "index.html").as_uri()]
    finally:
        browser.close()
