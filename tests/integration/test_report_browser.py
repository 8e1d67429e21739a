"""The run report in a real headless Chromium: it loads without errors, its filters and curves work, it fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from owlcap.evaluation.run_report import write_run_report
from tests.browser import Browser, find_browser
from tests.report_run import HOSTILE, make_run

pytestmark = pytest.mark.skipif(
    find_browser() is None,
    reason="no Chromium: run python tools/fetch_chromium.py, install chromium, or set OWLCAP_CHROMIUM",
)
# Evaluated in the page: the captions that can be seen, by what is asked of them.
SHOWN = "[...document.querySelectorAll('.group:not([hidden]) .caption:not([hidden])')]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, toy_clips: tuple[Path, ...]) -> Path:
    return write_run_report(make_run(tmp_path_factory.mktemp("browser"), toy_clips).path).path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser, report: Path) -> Browser:
    """The report, freshly loaded in a wide window by day."""
    started.open(report)
    return started


def choose(browser: Browser, name: str, value: str) -> None:
    """Give one of the filters a value, as a reader would."""
    browser.run(
        f"(() => {{ const field = document.querySelector('#filters [name={name}]'); field.value = {value!r};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def untick(browser: Browser, *values: str) -> None:
    """Click boxes."""
    for value in values:
        browser.run(f"document.querySelector('#filters [value={value}]').click()")


def count(browser: Browser) -> str:
    return browser.run("document.getElementById('count').textContent")


def test_it_loads_without_errors_and_asks_for_nothing_but_itself(browser: Browser, report: Path) -> None:
    assert browser.problems == []
    assert browser.requests == [report.as_uri()]
    assert count(browser) == "12 of 12 groups, 36 of 36 captions"


def test_a_hostile_caption_runs_nothing(browser: Browser) -> None:
    assert browser.run("document.title").startswith("made ")
    words = browser.run("[...document.querySelectorAll('.said > .words')].map((one) => one.textContent)")
    assert HOSTILE in words
    assert browser.run("document.querySelectorAll('img:not([src^=\"data:image/jpeg\"])').length") == 0


def test_even_markup_that_got_through_would_run_nothing(browser: Browser) -> None:
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    browser.run("new Promise((done) => setTimeout(done))")
    assert browser.run("document.title") != "1"
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_frames_are_decoded_pictures(browser: Browser) -> None:
    browser.run("Promise.all([...document.images].map((one) => { one.loading = 'eager'; return one.decode(); }))")
    assert browser.run("[...document.images].every((one) => one.naturalWidth === 112)")


def test_one_step_can_be_picked(browser: Browser) -> None:
    choose(browser, "step", "2")
    assert browser.run(f"{SHOWN}.every((one) => one.closest('.group').dataset.step === '2')")
    assert count(browser) == "4 of 12 groups, 12 of 36 captions"


def test_one_clip_can_be_looked_for(browser: Browser) -> None:
    choose(browser, "words", "CLIP-1")
    assert count(browser) == "3 of 12 groups, 12 of 36 captions"


def test_words_of_a_caption_can_be_looked_for(browser: Browser) -> None:
    choose(browser, "words", "a bird sings")
    assert count(browser) == "9 of 12 groups, 9 of 36 captions"


def test_a_range_of_rewards_leaves_the_captions_within_it(browser: Browser) -> None:
    choose(browser, "low", "1")
    choose(browser, "high", "1.5")
    rewards = browser.run(f"{SHOWN}.map((one) => Number(one.dataset.reward))")
    everything = browser.run("[...document.querySelectorAll('.caption')].map((one) => one.dataset.reward)")
    assert rewards
    assert sorted(rewards) == sorted(value for one in everything if one and 1 <= (value := float(one)) <= 1.5)


def test_verdicts_and_tags_leave_captions_with_such_a_unit_and_fade_the_others(browser: Browser) -> None:
    untick(browser, "supported", "not_mentioned", "motion")
    kinds = browser.run(f"{SHOWN}.map((one) => one.dataset.kinds)")
    assert kinds
    assert all("contradicted-detail" in one for one in kinds)
    bright = browser.run(
        f"{SHOWN}.flatMap((one) => [...one.querySelectorAll('mark:not(.dim)')].map((m) => m.className))"
    )
    assert set(bright) == {"contradicted detail"}
    assert browser.run(f"{SHOWN}.some((one) => one.querySelector('mark.dim'))")


def test_failed_groups_can_be_picked(browser: Browser) -> None:
    choose(browser, "kind", "failed")
    assert count(browser) == "3 of 12 groups, 0 of 36 captions"
    assert browser.run("document.querySelector('.group:not([hidden]) .failure').textContent").startswith("VideoError")


def test_groups_can_be_ordered_by_their_reward(browser: Browser) -> None:
    means = "[...document.querySelectorAll('.group')].map((one) => one.dataset.mean).filter(Boolean).map(Number)"
    choose(browser, "order", "best")
    best_first = browser.run(means)
    assert best_first == sorted(best_first, reverse=True)
    choose(browser, "order", "worst")
    assert browser.run(means) == sorted(best_first)


def test_filters_that_leave_nothing_say_so_and_can_be_reset(browser: Browser) -> None:
    choose(browser, "words", "no caption has these words")
    assert browser.run("document.getElementById('none').hidden") is False
    browser.run("document.getElementById('reset').click()")
    browser.run("new Promise((done) => setTimeout(done))")
    assert count(browser) == "12 of 12 groups, 36 of 36 captions"


def test_a_unit_lights_up_with_its_place_in_the_caption(browser: Browser) -> None:
    browser.run("document.getElementById('open').click()")
    browser.run("document.querySelector('.sides li[data-unit]').scrollIntoView({block: 'center'})")
    x, y = browser.run(
        "(() => { const box = document.querySelector('.sides li[data-unit]').getBoundingClientRect();"
        " return [box.x + 12, box.y + box.height / 2]; })()"
    )
    browser.point(x, y)
    assert browser.run("document.querySelectorAll('.said > .words mark.lit').length") > 0


def test_a_curve_tells_its_values_to_the_keyboard(browser: Browser) -> None:
    panels = "[...document.querySelectorAll('.panel')]"
    browser.run(f"{panels}.find((one) => one.textContent.includes('KL')).querySelector('.plot').focus()")
    browser.press("Home")
    assert browser.run("document.activeElement.querySelector('.tip').textContent") == "step 1\nKL 0.01"
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.querySelector('.tip').textContent") == "step 2\nKL 0.02"


def test_a_curve_tells_its_values_to_the_mouse(browser: Browser) -> None:
    x, y, width = browser.run(
        "(() => { const plot = document.querySelector('.plot'); plot.scrollIntoView({block: 'center'});"
        " const box = plot.getBoundingClientRect(); return [box.x, box.y + 20, box.width]; })()"
    )
    browser.point(x + width - 2, y)
    assert browser.run("document.querySelector('.tip').textContent").startswith("step 3\n")


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_the_page_is_never_wider_than_its_window(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width)
    browser.run("document.getElementById('open').click()")
    assert browser.run("document.documentElement.scrollWidth") <= width


# Of text on its ground, by the formula of WCAG 2; 4.5 is what small text needs.
CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const s = c[i] / 255;
    return sum + weight * (s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
  };
  const wanted = "body, .muted, .about, .tile dt, .badge, .advantage, .failure, .key, .units li, a, " +
    "mark.supported, mark.contradicted, mark.not_mentioned, button, nav a, thead th";
  return Math.min(...[...document.querySelectorAll(wanted)].map((one) => {
    const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["by day", "by night"])
def test_text_stands_out_from_its_ground(browser: Browser, report: Path, dark: bool) -> None:
    browser.open(report, dark=dark)
    assert browser.run(CONTRAST) >= 4.5


def test_the_page_is_dark_where_the_reader_likes_it_dark(browser: Browser, report: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    by_day = browser.run(ground)
    browser.open(report, dark=True)
    assert browser.run(ground) != by_day
    assert max(int(part) for part in browser.run(ground)[4:-1].split(",")) < 60
