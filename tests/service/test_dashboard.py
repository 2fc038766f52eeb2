"""The dashboard in a real browser: sign in, list, one job live, its figures and table, steering, and nothing unsafe."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

from service.auth import COOKIE
from service.plotly_asset import plotly_script
from tests.service import sample_job, seeded
from tests.service.api import RunningApi

CHROMIUM = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if p.is_file()), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
STATIC = Path(str(find_spec("service").origin)).parent / "static"  # type: ignore[union-attr]
EVIL = '<img src="https://evil.invalid/x.png" onerror="document.title=1">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except Error as error:
            reason = str(error).splitlines()[0]
            pytest.skip(f"no Chromium to test the dashboard in ({reason}); install it or run `playwright install`")
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and everything on it that should not have happened."""

    page: Page
    api: RunningApi
    faults: list[str] = field(default_factory=list)

    def sign_in(self) -> None:
        self.page.goto(self.api.url)
        self.page.get_by_label("Token").fill(self.api.token)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()

    def open_job(self, job_id: str) -> None:
        """As somebody who has signed in before."""
        self.page.context.add_cookies([{"name": COOKIE, "value": self.api.token, "url": self.api.url}])
        self.page.goto(f"{self.api.url}/#/jobs/{job_id}")
        expect(self.page.locator("[data-drawn]")).to_be_visible(timeout=15_000)


@pytest.fixture
def visit(browser: Browser, sqlite_api: RunningApi) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    visit = Visit(page, sqlite_api)

    def on_console(message: ConsoleMessage) -> None:
        # The first look without a cookie is answered with 401, and the browser notes that by itself.
        if message.type in ("error", "warning") and "401" not in message.text:
            visit.faults.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: visit.faults.append(str(error)))
    page.on("request", lambda r: None if _own(r.url, sqlite_api.url) else visit.faults.append(f"request to {r.url}"))
    yield visit
    page.close()
    assert visit.faults == []


def _own(address: str, base: str) -> bool:
    return address.startswith((base, "data:", "blob:"))


def add_finished(api: RunningApi, name: str = "edge") -> str:
    return seeded.add_finished(api.database, api.settings.data_dir, name=name)


def test_sign_in_refuses_a_wrong_token_and_takes_the_right_one(visit: Visit) -> None:
    visit.page.goto(visit.api.url)
    visit.page.get_by_label("Token").fill("wrong")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert").filter(has_text="opens nothing here")).to_be_visible()
    visit.sign_in()
    expect(visit.page.get_by_text("No jobs yet")).to_be_visible()
    cookie = visit.page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"


def test_the_list_shows_each_job_with_its_budget(visit: Visit) -> None:
    add_finished(visit.api)
    visit.sign_in()
    row = visit.page.get_by_role("link", name=re.compile("edge"))
    expect(row).to_contain_text("budget met")
    expect(row).to_contain_text("0.408×")
    expect(row).to_contain_text("24 trials")
    expect(row.get_by_role("img", name=re.compile("Latency 0.408× of 0.450× allowed, within budget"))).to_be_visible()
    visit.page.keyboard.press("Tab")
    row.focus()
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("heading", name="edge")).to_be_visible()


def test_a_finished_job_shows_front_table_and_files(visit: Visit) -> None:
    job_id = add_finished(visit.api)
    visit.open_job(job_id)
    page = visit.page
    expect(page.get_by_text("Trial 8 meets every limit of the budget.")).to_be_visible()
    expect(page.locator(".tile").first).to_contain_text("0.8655")
    scored = [t for t in sample_job.trials() if t.metric is not None]
    gated = len(sample_job.trials()) - len(scored)
    front = page.locator(".figure").first
    expect(front.locator("path.point")).to_have_count(len(scored) + gated + 1)  # and the baseline
    expect(page.locator(".figure").nth(1).locator("path.point")).to_have_count(len(scored))
    rows = page.locator("table.trials tbody tr")
    expect(rows).to_have_count(24)
    expect(rows.nth(0).locator("th")).to_have_text("23")
    expect(page.get_by_role("link", name="Report")).to_have_attribute("href", f"/v1/jobs/{job_id}/report")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download model").click()
    assert Path(download.value.path()).read_bytes() == seeded.WINNER_BYTES


def test_the_report_explains_itself_in_a_browser(visit: Visit) -> None:
    """Sixty layers stay readable: rows do not overlap, headings do not run into each other, nothing overflows."""
    rows = sample_job.trials()
    report = sample_job.report(rows)
    report["sensitivity"] = {
        "structured_pruning": {
            f"stage.{i}.conv": {level: {"loss": 0.01 * (i + 1), "metric": 0.8} for level in ("0.75", "0.5", "0.25")}
            for i in range(60)
        },
        "quantization": {f"stage.{i}.conv": {"8": {"loss": 1e-5, "metric": 0.88}} for i in range(60)},
    }
    visit.open_job(seeded.add_finished(visit.api.database, visit.api.settings.data_dir, report=report))
    job_id = visit.page.url.rpartition("/")[2]
    page = visit.page
    page.set_extra_http_headers({"Accept": "text/html"})
    page.goto(f"{visit.api.url}/v1/jobs/{job_id}/report")
    for heading in ("Why this one", "Sensitivity", "How the search went", "Trade-off"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("hypervolume"))).to_be_visible()
    picture = page.get_by_role("img", name=re.compile("Sensitivity of each layer"))
    expect(picture.locator("rect")).to_have_count(240)
    boxes = [box for t in picture.locator("text[font-size='10']").all()[:60] if (box := t.bounding_box()) is not None]
    assert len(boxes) == 60
    assert all(a["y"] + a["height"] <= b["y"] + 3 for a, b in itertools.pairwise(boxes))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_table_sorts_and_opens_rows(visit: Visit) -> None:
    visit.open_job(add_finished(visit.api))
    page = visit.page
    page.get_by_role("button", name="Metric", exact=True).click()
    best_first = sorted((t for t in sample_job.trials() if t.metric is not None), key=lambda t: -(t.metric or 0))
    heads = page.locator("table.trials tbody th")
    expect(heads.first).to_have_text(str(best_first[0].number))
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Metric")
    expect(heads.last).to_have_text("4")  # gated ones have no metric and stand last
    page.get_by_role("button", name="Trial 8, details").press("Enter")
    expect(page.locator("tr.details")).to_contain_text("stage_3.0.conv_a 49")
    expect(page.get_by_role("button", name="Trial 8, details")).to_be_focused()


def test_pointing_at_a_trial_says_its_recipe_in_words(visit: Visit) -> None:
    visit.open_job(add_finished(visit.api))
    point = visit.page.locator(".figure").first.locator(".trace path.point").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(visit.page.locator(".hover-card")).to_contain_text(re.compile("Trial|Uncompressed"))


def test_a_running_job_moves_without_a_reload(visit: Visit) -> None:
    rows = sample_job.trials()
    job_id, ledger = seeded.add_running(visit.api.database, visit.api.settings.data_dir, rows[:6])
    visit.open_job(job_id)
    page = visit.page
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    expect(page.locator("table.trials tbody tr")).to_have_count(6)
    ledger.put_trial(rows[6])
    ledger.log("info", "a seventh one")
    expect(page.locator("table.trials tbody tr")).to_have_count(7)
    expect(page.get_by_role("log")).to_contain_text("a seventh one")
    ledger.finish("succeeded", outcome="nearest_miss", reason="the runtime costs 0.1 ms", report={})
    expect(page.locator(".title-row")).to_contain_text("nearest miss")
    expect(page.locator(".verdict")).to_contain_text("The runtime costs 0.1 ms.")


def test_without_events_it_polls(visit: Visit) -> None:
    rows = sample_job.trials()
    job_id, ledger = seeded.add_running(visit.api.database, visit.api.settings.data_dir, rows[:3])
    visit.page.route("**/events?**", lambda route: route.fulfill(status=404, body="{}"))
    visit.open_job(job_id)
    expect(visit.page.get_by_role("status").filter(has_text="Polling")).to_be_visible()
    ledger.put_trial(rows[3])
    expect(visit.page.locator("table.trials tbody tr")).to_have_count(4, timeout=8_000)
    visit.faults[:] = [f for f in visit.faults if "404" not in f and "MIME" not in f]


def test_cancelling_asks_first(visit: Visit) -> None:
    job_id, _ = seeded.add_running(visit.api.database, visit.api.settings.data_dir, sample_job.trials(3))
    visit.open_job(job_id)
    page = visit.page
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("button", name="Keep searching").click()
    assert visit.api.client.get(f"/v1/jobs/{job_id}").json()["directive"] == "run"
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    expect(page.locator(".title-row")).to_contain_text("cancelling")
    assert visit.api.client.get(f"/v1/jobs/{job_id}").json()["directive"] == "cancel"


def test_pause_and_resume_of_a_waiting_job(visit: Visit) -> None:
    visit.open_job(visit.api.submit())
    page = visit.page
    expect(page.locator(".verdict")).to_contain_text("bantam worker")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".title-row")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".title-row")).to_contain_text("queued")


def test_only_the_newest_200_rows_are_drawn_at_first(visit: Visit) -> None:
    base = sample_job.trials(3)[2]
    rows = [replace(base, number=n, on_front=False) for n in range(250)]
    job_id, _ = seeded.add_running(visit.api.database, visit.api.settings.data_dir, rows)
    visit.open_job(job_id)
    expect(visit.page.locator("table.trials tbody tr")).to_have_count(200)
    visit.page.get_by_role("button", name="Show 50 more").click()
    expect(visit.page.locator("table.trials tbody tr")).to_have_count(250)


def test_what_the_service_says_is_never_markup(visit: Visit) -> None:
    rows = [replace(t, origin=EVIL, reason=EVIL, worker=EVIL) for t in sample_job.trials(9)]
    job_id, ledger = seeded.add_running(visit.api.database, visit.api.settings.data_dir, rows, name=EVIL)
    ledger.log("error", EVIL)
    visit.sign_in()
    expect(visit.page.get_by_text(EVIL).first).to_be_visible()
    visit.open_job(job_id)
    expect(visit.page.get_by_role("heading", name=EVIL)).to_be_visible()
    visit.page.get_by_role("button", name="Trial 8, details").click()
    assert visit.page.locator("main img").count() == 0
    assert visit.page.title().startswith("<img")


def test_an_unknown_job_says_so(visit: Visit) -> None:
    visit.sign_in()
    visit.page.goto(f"{visit.api.url}/#/jobs/nope")
    expect(visit.page.get_by_role("alert").filter(has_text="nope")).to_be_visible()
    expect(visit.page.get_by_role("heading", name="No such job")).to_be_visible()
    visit.faults[:] = [f for f in visit.faults if "404" not in f]


def test_the_report_opens_as_a_page(visit: Visit) -> None:
    job_id = add_finished(visit.api)
    visit.sign_in()
    visit.page.goto(f"{visit.api.url}/v1/jobs/{job_id}/report")
    expect(visit.page.get_by_role("heading", name="edge")).to_be_visible()
    expect(visit.page.locator("svg circle.winner")).to_have_count(1)


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_text_has_contrast(visit: Visit, width: int, scheme: str) -> None:
    job_id = add_finished(visit.api)
    visit.page.set_viewport_size({"width": width, "height": 844})
    visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    visit.open_job(job_id)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    too_faint = visit.page.evaluate(CONTRAST)
    assert too_faint == []


# Contrast of each visible text with what lies behind it (WCAG 2, 1.4.3): 4.5, or 3 for large text.
CONTRAST = """() => {
  const channels = (c) => {
    const n = c.match(/[\\d.]+/g).map(Number);
    return { rgb: n.slice(0, 3), a: n.length > 3 ? n[3] : 1 };
  };
  const light = ({ rgb }) => {
    const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.a === 1) return c;
    }
    return { rgb: [255, 255, 255], a: 1 };
  };
  const faint = [];
  for (const e of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(".hidden")) continue;
    const style = getComputedStyle(e);
    const [x, y] = [light(channels(style.color)), light(behind(e))].sort((a, b) => b - a);
    const ratio = (x + 0.05) / (y + 0.05);
    const big = parseFloat(style.fontSize) >= 24;
    if (ratio < (big ? 3 : 4.5)) faint.push([e.textContent.slice(0, 40), Number(ratio.toFixed(2))]);
  }
  return faint;
}"""


def test_pages_forbid_scripts_of_others(sqlite_api: RunningApi) -> None:
    policy = sqlite_api.open.get("/").headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy
    script = sqlite_api.open.get("/static/plotly.min.js")
    assert script.status_code == 200
    assert script.content == plotly_script().read_bytes()


def test_no_script_parses_data_as_html() -> None:
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://")
    sources = [*STATIC.rglob("*.js"), STATIC / "index.html"]
    assert len(sources) > 10
    for path in sources:
        text = path.read_text().replace("http://www.w3.org/", "")
        assert not forbidden.findall(text), path
