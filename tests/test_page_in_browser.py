"""The page in a real browser: nothing fails, nothing is fetched, and what is pointed at, focused or pressed answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from senet_bench.core.results import Run, RunConditions
from senet_bench.core.store import Store
from senet_bench.gallery import report as reporting
from senet_bench.gallery.page import build
from tests.support import browser, folders, stored

FLOPS = "#error-vs-flops"
SCROLLED = """
arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});
requestAnimationFrame(() => requestAnimationFrame(arguments[1]));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page made from committed facts and from those of `tests.stored`, one of them hostile."""
    browser.found()
    root = tmp_path_factory.mktemp("results")
    runs = {path: path.read_bytes() for path in (stored.COMMITTED / "runs").glob("*/*-compare-*.json")}
    timed = [path for path, text in runs.items() if b"control_ratio" in text and b"sevgg16" in text]
    committed = max(timed, key=lambda path: path.name)
    copy = root / committed.relative_to(stored.COMMITTED)
    copy.parent.mkdir(parents=True)
    shutil.copy(committed, copy)
    stored.store(root, stored.ablation(), "20261120T100000Z-ablate-1")
    stored.store(root, stored.ablation("bbbbbbbbbbbb"), "20261120T100001Z-ablate-2")
    stored.store(root, stored.evaluated(stored.HOSTILE), "20261120T100002Z-evaluate-3")
    stored.store(root, stored.gates(stored.HOSTILE, stored.HOSTILE), "20261120T100003Z-excitations-4")
    rows = stored.by_runtime("ResNet", {("eager", 1): 1.08, ("eager", 8): 1.04, ("openvino", 1): 1.02})
    by_runtime = Run(**stored.made("compare", "cccccccccccc") | {"conditions": RunConditions()}, rows=rows)
    stored.store(root, by_runtime, "20261120T100004Z-compare-5")
    report = reporting.read_gallery(Store(root))
    written = root / "index.html"
    written.write_text(build.build_page(report.collection, report.content), encoding="utf-8")
    return written.as_uri()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def opened(chrome: Any, page: str) -> Any:
    """The page, just opened, at desktop size in light colours."""
    browser.resize(chrome, 1280, 1000)
    browser.prefer(chrome, prefers_color_scheme="light")
    chrome.get("about:blank")
    browser.requests(chrome), chrome.get_log("browser")
    chrome.get(page)
    return chrome


def one(running: Any, selector: str) -> Any:
    return running.find_element("css selector", selector)


def shown(running: Any, selector: str) -> list[Any]:
    return [found for found in running.find_elements("css selector", selector) if found.is_displayed()]


def hover(running: Any, element: Any) -> None:
    from selenium.webdriver import ActionChains

    running.execute_async_script(SCROLLED, element)
    ActionChains(running, duration=0).move_to_element(element).perform()


def click(running: Any, element: Any) -> None:
    hover(running, element)
    element.click()


def press(running: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(running, duration=0).send_keys(key).perform()


def mark(running: Any, chart: str, label: str) -> Any:
    return one(running, f'{chart} .mark[aria-label^="{label};"] .reach')


def test_it_opens_without_errors_and_asks_for_nothing_else(opened: Any, page: str) -> None:
    assert opened.get_log("browser") == []
    assert [address for address in browser.requests(opened) if not address.startswith("data:")] == [page]


def test_hostile_names_stay_text(opened: Any) -> None:
    assert opened.title.startswith("In the paper SE takes")
    assert opened.find_elements("css selector", "img") == []
    assert len(opened.find_elements("css selector", "script")) == 1
    assert "</script><img src=x" in one(opened, "main").get_attribute("textContent")


def test_hovering_over_a_point_shows_its_row(opened: Any) -> None:
    click(opened, one(opened, "#cost details summary"))
    hover(opened, mark(opened, FLOPS, "SE-ResNet-50"))
    told = one(opened, "#tip").text
    assert told.splitlines()[0] == "SE-ResNet-50"
    assert "3.87 GFLOPs as printed" in told
    assert "23.29 %" in told
    row = one(opened, "tr.on")
    assert row.find_element("css selector", "th").text == "SE-ResNet-50"
    assert "23.29" in row.text
    hover(opened, one(opened, "h1"))
    assert not one(opened, "#tip").is_displayed()


def test_what_a_runtime_costs_answers_with_its_line_of_the_table(opened: Any) -> None:
    click(opened, one(opened, "#runtimes details summary"))
    hover(opened, one(opened, '#runtimes .mark[aria-label*="openvino, batch 1"] .reach'))
    assert one(opened, "#tip").text.splitlines()[:3] == [
        *("SE-ResNet", "openvino, batch 1", "1.020 (1.010 to 1.040) times its baseline's time"),
    ]
    assert [cell.text for cell in one(opened, "#runtimes tr.on").find_elements("css selector", "td")][:2] == [
        *("openvino", "1"),
    ]


def test_the_keyboard_reaches_every_point_and_cell(opened: Any) -> None:
    from selenium.webdriver import Keys

    click(opened, one(opened, "h1"))  # a window that nobody has clicked in has no focus to give
    first = one(opened, f"{FLOPS} .mark")
    opened.execute_script("arguments[0].focus()", first)
    seen = [one(opened, "#tip").text.splitlines()[0]]
    press(opened, Keys.ARROW_RIGHT)
    seen.append(one(opened, "#tip").text.splitlines()[0])
    assert seen == ["ResNet-50", "SE-ResNet-50"]
    assert opened.switch_to.active_element.get_attribute("aria-describedby") == "tip"
    stops = opened.execute_script(f"return document.querySelectorAll('{FLOPS} .mark[tabindex=\"0\"]').length")
    assert stops == 1
    press(opened, Keys.ESCAPE)
    assert not one(opened, "#tip").is_displayed()
    cell = one(opened, "#table2 td.not-reproduced")
    opened.execute_script("arguments[0].focus()", cell)
    assert "no public definition of Inception-ResNet-v2" in one(opened, "#tip").text
    press(opened, Keys.ARROW_UP)
    assert one(opened, "#tip").text.startswith("BN-Inception: GFLOPs, match")


def test_hovering_over_a_cell_explains_its_status(opened: Any) -> None:
    hover(opened, one(opened, "#table2 td.match"))
    told = one(opened, "#tip").text
    assert told.startswith("ResNet-50: GFLOPs, match")
    assert "counted 3.858" in told
    assert "reaches the printed digits" in told


def test_tables_sort_by_every_heading(opened: Any) -> None:
    buttons = opened.find_elements("css selector", "#table2 thead button")
    gflops = buttons[5]
    assert gflops.text == "GFLOPs"

    def column() -> list[float]:
        cells = opened.find_elements("css selector", "#table2 tbody tr td:nth-of-type(5)")
        return [float(cell.text.split()[0]) for cell in cells]

    before = column()
    click(opened, gflops)
    assert column() == sorted(before) != before
    assert one(opened, "#table2 th[aria-sort]").get_attribute("aria-sort") == "ascending"
    press(opened, "\n")
    assert column() == sorted(before, reverse=True)
    assert one(opened, "#table2 th[aria-sort]").get_attribute("aria-sort") == "descending"
    click(opened, buttons[0])
    names = [cell.text for cell in opened.find_elements("css selector", "#table2 tbody th")]
    assert names[:3] == ["BN-Inception", "Inception-ResNet-v2", "ResNet-50"]
    assert len(opened.find_elements("css selector", "#table2 th[aria-sort]")) == 1


def test_a_family_can_be_switched_off(opened: Any) -> None:
    parts = f"{FLOPS} [data-family='vgg']"
    assert len(shown(opened, parts)) >= 3
    click(opened, one(opened, ".families input[value='vgg']"))
    assert shown(opened, parts) == []
    assert shown(opened, f"{FLOPS} [data-family='resnet'].mark")
    click(opened, one(opened, ".families input[value='vgg']"))
    assert len(shown(opened, parts)) >= 3


def test_tabs_show_one_chart_at_a_time(opened: Any) -> None:
    from selenium.webdriver import Keys

    assert [chart.get_attribute("id") for chart in shown(opened, "#cost .chart")] == ["error-vs-flops"]
    click(opened, one(opened, "#cost .panel .tabs button"))
    press(opened, Keys.ARROW_RIGHT)
    assert [chart.get_attribute("id") for chart in shown(opened, "#cost .chart")] == ["error-vs-params"]
    assert len(shown(opened, "#latency .chart")) == 1  # machines one at a time


def test_zooming_moves_points_and_ticks_together(opened: Any) -> None:
    chart = one(opened, FLOPS)
    ends = [mark(opened, FLOPS, name) for name in ("ResNet-50", "SE-ResNet-50")]

    def apart() -> float:
        high, low = (end.rect for end in ends)
        return float(low["y"] - high["y"])

    before, buttons = apart(), shown(opened, ".zoom button")
    click(opened, buttons[0])
    click(opened, buttons[0])
    assert "closer" in chart.get_attribute("class")
    assert apart() == pytest.approx(before * 1.6**2, rel=0.02)
    ticks = shown(opened, f"{FLOPS} .ticks text")
    assert len(ticks) >= 5
    values = [float(tick.text) for tick in ticks if tick.get_attribute("text-anchor") == "end"]
    assert 24.0 in values or 25.0 in values
    assert len(shown(opened, f"{FLOPS} .mark")) < len(opened.find_elements("css selector", f"{FLOPS} .mark"))
    click(opened, one(opened, ".zoom [data-zoom='reset']"))
    assert apart() == pytest.approx(before, abs=0.6)
    assert shown(opened, f"{FLOPS} .ticks text") == []


def test_dragging_zooms_to_what_was_chosen(opened: Any) -> None:
    from selenium.webdriver import ActionChains

    target = mark(opened, FLOPS, "ResNet-50")
    hover(opened, target)
    steps = ActionChains(opened, duration=20).move_to_element_with_offset(target, -40, -40).click_and_hold()
    steps.move_by_offset(80, 80).release().perform()
    box = one(opened, f"{FLOPS} .field").rect
    middle = target.rect
    assert middle["x"] + middle["width"] / 2 == pytest.approx(box["x"] + box["width"] / 2, abs=12)
    assert middle["y"] + middle["height"] / 2 == pytest.approx(box["y"] + box["height"] / 2, abs=12)


def test_colours_follow_the_system_and_the_switch(opened: Any) -> None:
    def ground() -> str:
        return str(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))

    light = ground()
    browser.prefer(opened, prefers_color_scheme="dark")
    dark = ground()
    assert (light, dark) == ("rgb(250, 248, 244)", "rgb(18, 21, 23)")
    switch = one(opened, "#theme")
    click(opened, switch)
    assert (ground(), switch.get_attribute("aria-label")) == (light, "Colours: light")
    opened.refresh()
    assert ground() == light
    click(opened, one(opened, "#theme"))
    assert ground() == dark
    click(opened, one(opened, "#theme"))
    assert one(opened, "#theme").get_attribute("aria-label") == "Colours: as the system"


def test_plots_follow_the_colours(opened: Any) -> None:
    def stroke() -> str:
        return str(
            opened.execute_script(f"return getComputedStyle(document.querySelector('{FLOPS} .mark path')).stroke")
        )

    light = stroke()
    browser.prefer(opened, prefers_color_scheme="dark")
    assert light == "rgb(26, 95, 163)"
    assert stroke() == "rgb(131, 189, 242)"


@pytest.mark.parametrize("wide", [320, 375, 768])
def test_nothing_scrolls_sideways_but_tables_and_charts_in_their_own_boxes(opened: Any, wide: int) -> None:
    browser.resize(opened, wide, 800)
    asked = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth, innerWidth]"
    reached, room, window = opened.execute_script(asked)
    assert (reached, window) == (room, wide)
    box = one(opened, "#table2 .scroll")
    inside, outside = opened.execute_script("return [arguments[0].scrollWidth, arguments[0].clientWidth]", box)
    assert inside > outside


def test_nothing_moves_for_those_who_prefer_it_still(opened: Any) -> None:
    browser.prefer(opened, prefers_reduced_motion="reduce")
    assert opened.execute_script("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    moving = "return document.getAnimations().length"
    assert opened.execute_script(moving) == 0


def test_it_prints_every_chart_in_light_colours(opened: Any) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shown(opened, "#cost .chart")) > 3
    assert not one(opened, ".top").is_displayed()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


LAID_OUT = """
document.querySelectorAll('[role=tabpanel]').forEach((panel) => { panel.hidden = false; });
const faults = [];
const box = (element) => element.getBoundingClientRect();
const meet = (a, b, slack) => a.left + slack < b.right && b.left + slack < a.right
  && a.top + slack < b.bottom && b.top + slack < a.bottom;
for (const chart of document.querySelectorAll('.chart')) {
  const edge = box(chart);
  const texts = [...chart.querySelectorAll('text')].filter((text) => text.textContent.trim());
  const marks = [...chart.querySelectorAll('.mark > :not(.reach)')].filter((mark) => mark.tagName !== 'text');
  for (const text of texts) {
    const own = box(text), slack = own.height * 0.22;
    const out = own.left < edge.left - 1 || own.right > edge.right + 1
      || own.top < edge.top - 1 || own.bottom > edge.bottom + 1;
    if (out)
      faults.push([chart.id, 'outside', text.textContent]);
    for (const mark of marks) if (meet(own, box(mark), slack)) faults.push([chart.id, 'over a mark', text.textContent]);
    if (text.hasAttribute('transform')) continue;
    for (const other of texts)
      if (other !== text && !other.hasAttribute('transform') && meet(own, box(other), slack))
        faults.push([chart.id, 'over a text', text.textContent, other.textContent]);
  }
}
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) faults.push(['page', 'scrolls sideways', page.scrollWidth]);
return faults;
"""
FOLDERS = 20


@pytest.mark.slow
def test_no_text_lies_over_a_mark_or_another_text_in_any_folder_at_any_width(
    chrome: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    faults = []
    for seed in range(FOLDERS):
        root = tmp_path_factory.mktemp("drawn")
        folders.drawn(root, seed)
        report = reporting.read_gallery(Store(root))
        written = root / "index.html"
        written.write_text(build.build_page(report.collection, report.content), encoding="utf-8")
        for wide in (360, 768, 1280):
            for scheme in ("light", "dark"):
                browser.resize(chrome, wide, 900)
                browser.prefer(chrome, prefers_color_scheme=scheme)
                chrome.get("about:blank")
                browser.requests(chrome), chrome.get_log("browser")
                chrome.get(written.as_uri())
                faults += [(seed, wide, scheme, *fault) for fault in chrome.execute_script(LAID_OUT)]
                assert chrome.get_log("browser") == []
                assert [one for one in browser.requests(chrome) if not one.startswith("data:")] == [written.as_uri()]
        browser.prefer(chrome, prefers_reduced_motion="reduce")  # or a stop is looked for while the page still moves
        chrome.get(written.as_uri())
        faults += [(seed, "keyboard", fault) for fault in unreachable(chrome)]
    assert faults == []


STOP = """
const one = document.activeElement, box = (one.closest('label') || one).getBoundingClientRect();
const seen = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight;
const ring = one.querySelector(':scope > .reach');  // a mark has a ring of its own
return [one.outerHTML.slice(0, 80), seen, ring ? getComputedStyle(ring).stroke : getComputedStyle(one).outlineStyle];
"""


def unreachable(running: Any) -> list[tuple[str, str]]:
    """What is wrong of the first stops of the tabulator: it stands still, or a stop is not to be seen."""
    from selenium.webdriver import Keys

    faults, before = [], ""
    for _ in range(25):
        press(running, Keys.TAB)
        name, seen, outline = running.execute_script(STOP)
        if name.startswith("<body"):
            break
        if not seen:
            faults.append((name, "not in sight"))
        if outline == "none":
            faults.append((name, "without an outline"))
        if name == before:
            faults.append((name, "stands still"))
        before = name
    return faults
