"""The pages of a comparison and a reproduction in a browser: nothing fetched, nothing wrong, nothing too wide."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small

from freefast.cli import main

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

WIDTHS = (390, 1280)
HEADINGS = {
    "compare": [
        "Results", "Training", "Time and robustness", "Adversarial examples", "Loss surface", "Settings", "Environment",
    ],
    "reproduce": [
        "Results", "Table of section 7.1", "Figure 3", "Figure 5", "Time and robustness", "Adversarial examples",
        "Loss surface", "Settings", "Environment",
    ],
}  # fmt: skip
PICTURES = {
    "compare": 5,  # curves, time, examples of both runs, surfaces
    "reproduce": 5,  # two figures, time, examples of one run, surface
}


@pytest.fixture(scope="module", params=HEADINGS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which command the page is of."""
    return request.param


@pytest.fixture(scope="module")
def report(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs of a few digits."""
    out = tmp_path_factory.mktemp(kind) / "all"
    if kind == "compare":
        limits = ["--limit-train", "200", "--limit-test", "60", "--width", "4", "--epochs", "2"]
        assert main(["compare", *limits, "--methods", "standard", "fast", "--out", str(out)]) == 0
    else:
        assert small.reproduce("--only", "table-7.1", "figure-3", "figure-5", "--out", str(out)) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        # a container's root may not use Chromium's own sandbox; the page is ours
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=str)
def page(request: pytest.FixtureRequest, browser: "playwright.Browser", report: Path) -> Iterator["playwright.Page"]:
    """The page on a screen; at the end, what it asked for and complained about is checked."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    requests, complaints = [], []
    page.on("request", lambda asked: requests.append(asked.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert complaints == []


def test_headings_and_pictures_are_there(kind: str, page: "playwright.Page") -> None:
    headings = page.locator("h2").all_text_contents()
    falls = ["Catastrophic overfitting"] if "Catastrophic overfitting" in headings else []
    assert [heading for heading in headings if heading not in falls] == HEADINGS[kind]
    sizes = page.eval_on_selector_all("img", "images => images.map(image => [image.complete, image.naturalWidth])")
    assert len(sizes) == PICTURES[kind]
    assert all(complete and width > 0 for complete, width in sizes)
    assert all(page.locator("img").nth(n).is_visible() for n in range(len(sizes)))


def test_nothing_is_wider_than_the_screen(page: "playwright.Page") -> None:
    page.locator("summary").first.click()  # settings have long words
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("document.body.scrollWidth <= window.innerWidth")
    escaped = """nodes => nodes.filter(node => !node.parentElement.closest('.wide') &&
        node.getBoundingClientRect().right > window.innerWidth).map(node => node.outerHTML.slice(0, 80))"""
    assert page.eval_on_selector_all("main *", escaped) == []


def test_text_is_large_enough_and_stands_out(page: "playwright.Page") -> None:
    """Contrast of at least 4.5, as WCAG 2.2 (1.4.3) wants; nothing under 11 pixels."""
    looks = page.eval_on_selector_all(
        "h1, h2, p, td, th, dt, dd, figcaption, summary",
        """nodes => nodes.map(node => {
            const style = getComputedStyle(node)
            let behind = node
            while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement
            return [parseFloat(style.fontSize), style.color, getComputedStyle(behind).backgroundColor]
        })""",
    )
    assert len(looks) > 50
    assert min(size for size, _, _ in looks) >= 11
    for ink, paper in {(ink, paper) for _, ink, paper in looks}:
        bright, dark = sorted((_luminance(ink), _luminance(paper)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_reproductions_tables_show_their_numbers(
    width: int, browser: "playwright.Browser", tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a line is of leaves the larger part of a narrow screen to its numbers, and does not scroll away."""
    out = tmp_path_factory.mktemp("reproduced") / "out"
    assert small.reproduce("--only", "table-7.1", "--budget-minutes", "0", "--out", str(out)) == 0
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((out / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    table = page.locator(".wide").nth(1)
    table.evaluate("table => { table.scrollLeft = 50 }")
    first = table.locator("tbody tr").first.locator("td").first.bounding_box()
    assert first["width"] < 0.35 * width
    assert first["x"] >= 0
    page.close()


def _luminance(colour: str) -> float:
    """colour: "rgb(R, G, B)"."""
    channels = [int(number) / 255 for number in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
