"""A report in headless Chromium: nothing fails, nothing is fetched, and the gallery counts as Python does.

Set U2PL_REPORT to a ``report.html`` to take the pictures of the documentation from it.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_html_gallery import shot
from test_html_page import HOSTILE, PALETTE, page

from u2pl.report.html.gallery import LEVELS, leveled, threshold
from u2pl.report.html.page import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
LOOKS = {"wide": (1280, 900, "light"), "phone": (390, 844, "light"), "dark": (1280, 900, "dark")}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report full of hostile names."""
    found = tmp_path_factory.mktemp("report") / "report.html"
    found.write_text(render(page()), encoding="utf-8")
    return found


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Open]:
    """``opened(look, path)``: a page of the report. At the end, no error, dialog or request may have been."""
    problems: list[str] = []
    contexts = []

    def open_page(look: str = "wide", file: Path = path) -> Any:
        width, height, scheme = LOOKS[look]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: problems.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: problems.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        tab.on("request", lambda request: problems.append(request.url) if _is_asked(request.url, file) else None)
        tab.goto(file.as_uri())
        tab.wait_for_selector("body[data-opened]")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _is_asked(url: str, file: Path) -> bool:
    return not url.startswith("data:") and url != file.as_uri()


def expected_shares(alpha: float, number: int, *, of_one: bool) -> tuple[float, float]:
    """Unreliable shares of all images and of one, by a loop over the levels of its pixels."""
    levels, _, pixels = leveled([shot(seed).entropy for seed in range(len(HOSTILE))])
    own = [int((levels[number] == level).sum()) for level in range(LEVELS)]
    limit = threshold(own if of_one else pixels.tolist(), alpha)
    every = [value for each in levels for value in each.ravel().tolist()]
    one = levels[number].ravel().tolist()
    return sum(value >= limit for value in every) / len(every), sum(value >= limit for value in one) / len(one)


def shown_shares(tab: Any) -> tuple[float, float]:
    """Shares as the page has worked them out; it prints them in percent."""
    exact = [float(tab.get_attribute(f"#{name}", "data-share")) for name in ("share-all", "share-one")]
    printed = [float(tab.inner_text(f"#{name}").removesuffix(" %")) for name in ("share-all", "share-one")]
    assert printed == pytest.approx([100 * share for share in exact], abs=0.0051)
    return exact[0], exact[1]


def pixels_of(tab: Any) -> list[int]:
    return tab.evaluate(
        "() => { const c = document.getElementById('canvas');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"
    )


def set_range(tab: Any, name: str, value: int) -> None:
    tab.eval_on_selector(
        f"#{name}", "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", str(value)
    )


@pytest.mark.parametrize("alpha", [0, 7, 20, 50, 100])
def test_the_slider_divides_the_pixels_as_python_does(opened: Open, alpha: int) -> None:
    tab = opened()
    set_range(tab, "alpha", alpha)
    assert shown_shares(tab) == expected_shares(alpha / 100, 0, of_one=False)
    tab.check("input[name=over][value=one]")
    assert shown_shares(tab) == expected_shares(alpha / 100, 0, of_one=True)
    tab.check("input[name=layer][value=partition]")
    set_range(tab, "opacity", 100)
    values = pixels_of(tab)
    green = sum(values[place : place + 3] == [0, 158, 115] for place in range(0, len(values), 4))
    assert 1 - green / (len(values) // 4) == pytest.approx(expected_shares(alpha / 100, 0, of_one=True)[1])


def test_layers_opacity_and_class_toggles_change_the_picture(opened: Open) -> None:
    tab = opened()
    set_range(tab, "opacity", 100)
    whole = pixels_of(tab)
    colours = [PALETTE[index] for index in shot(0).mask.ravel()]
    assert [tuple(whole[4 * place : 4 * place + 3]) for place in range(len(colours))] == colours
    tab.uncheck("input[name=class][value='1']")
    fewer = pixels_of(tab)
    changed = {
        colours[place] for place in range(len(colours)) if fewer[4 * place : 4 * place + 3] != list(colours[place])
    }
    assert changed == {PALETTE[1]}
    set_range(tab, "opacity", 0)
    assert pixels_of(tab) not in (whole, fewer)
    tab.keyboard.press("t")
    assert tab.is_checked("input[name=layer][value=truth]")


def test_the_keyboard_moves_through_images_layers_alpha_and_zoom(opened: Open) -> None:
    tab = opened()
    before = tab.eval_on_selector("#canvas", "e => e.clientWidth")
    tab.keyboard.press("-")
    assert tab.eval_on_selector("#canvas", "e => e.clientWidth") < before
    tab.keyboard.press("+")
    assert tab.eval_on_selector("#canvas", "e => e.clientWidth") == before
    for key, layer in (("e", "entropy"), ("r", "partition"), ("t", "truth"), ("p", "mask")):
        tab.keyboard.press(key)
        assert tab.is_checked(f"input[name=layer][value={layer}]")
    tab.keyboard.press("]")
    assert tab.inner_text("#alpha-value") == "0.21"
    tab.keyboard.press("[")
    tab.keyboard.press("[")
    assert tab.inner_text("#alpha-value") == "0.19"
    tab.keyboard.press("ArrowRight")
    tab.wait_for_selector("body[data-opened='1']")
    assert shown_shares(tab) == expected_shares(0.19, 1, of_one=False)
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_selector("body[data-opened='3']")
    tab.focus("button.open[data-card='2']")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("body[data-opened='2']")
    assert tab.evaluate("document.activeElement.id") == "stage"


def test_keys_that_follow_each_other_fast_each_count(opened: Open) -> None:
    tab = opened()
    press = "k => document.body.dispatchEvent(new KeyboardEvent('keydown', {bubbles: true, ...k}))"
    tab.evaluate(f"() => {{ const press = {press}; for (let n = 0; n < 3; n++) press({{key: 'ArrowRight'}}); }}")
    tab.wait_for_selector("body[data-opened='3']")
    assert shown_shares(tab) == expected_shares(0.2, 3, of_one=False)
    tab.evaluate(press, {"key": "]", "ctrlKey": True, "altKey": True})  # a command of the browser
    assert tab.inner_text("#alpha-value") == "0.20"
    tab.evaluate(press, {"key": "]", "ctrlKey": True, "altKey": True, "modifierAltGraph": True})
    assert tab.inner_text("#alpha-value") == "0.21"


def test_pointing_tells_names_and_counts(opened: Open) -> None:
    tab = opened()
    tab.hover(".confusion td[title]")
    assert tab.inner_text("#confusion-count") == tab.get_attribute(".confusion td[title]", "title")
    tab.hover("#canvas", position={"x": 2, "y": 2})
    assert tab.inner_text("#readout").startswith("truth: ignored; prediction: ")


@pytest.mark.parametrize("look", list(LOOKS))
def test_the_page_is_accessible_and_as_wide_as_the_window(opened: Open, look: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab = opened(look)
    found = axe.Axe().run(tab).response
    assert len(found["passes"]) > 20
    assert [each["id"] for each in found["violations"] if each["impact"] in ("serious", "critical", "moderate")] == []
    assert tab.evaluate("document.documentElement.scrollWidth") == LOOKS[look][0]


@pytest.mark.skipif("U2PL_REPORT" not in os.environ, reason="set U2PL_REPORT to a report.html to take pictures of it")
@pytest.mark.parametrize("look", list(LOOKS))
def test_pictures_for_the_documentation(opened: Open, look: str) -> None:
    tab = opened(look, Path(os.environ["U2PL_REPORT"]).resolve())
    if look == "dark":
        tab.check("input[name=layer][value=partition]")
        tab.eval_on_selector("#gallery", "e => e.scrollIntoView({behavior: 'instant'})")
    taken = Image.open(io.BytesIO(tab.screenshot())).convert("P", palette=Image.Palette.ADAPTIVE, colors=192)
    target = PICTURES / f"report_{look}.png"
    taken.save(target, optimize=True)
    assert target.stat().st_size < 200_000
