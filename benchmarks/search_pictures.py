"""The pictures of docs/how-the-search-works.md, out of a real search on scikit-learn's handwritten digits.

    python -m benchmarks.search_pictures            # some three minutes; writes docs/images/search-*.png

Trains the demo's network, starts the service, posts a job for a whole front and photographs parts of its report in
Chromium. The numbers in the pictures differ from run to run and from machine to machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console

from service import demo
from service.cli_display import follow
from service.client import Client

IMAGES = Path(__file__).parent.parent / "docs" / "images"
PARTS = {
    "why": "search-why",
    "sensitivity": "search-sensitivity",
    "search": "search-course",
    "trade-off": "search-front",
}
WIDTH = 900


def search(folder: Path, seconds: float, console: Console) -> str:
    """Runs the job; returns its report as a page."""
    demo.train(folder, console)
    data = folder / "data"
    with demo.running_service(data, folder / "service.log", console, keep=False) as url:
        client = Client(url, (data / "token").read_text().strip())
        with client:
            model = client.upload_model(folder / "model.pt2", "digits")
            parts = [client.upload_dataset(folder / f"{name}.parquet", name) for name in ("train", "test")]
            job = demo.job_of(model["id"], *(str(p["id"]) for p in parts))
            job |= {"name": "digits, the whole front", "objective": "pareto", "budget": {"max_metric_drop": 0.03}}
            job["techniques"] = ["structured_pruning", "distillation", "quantization"]
            job["search"] = {"max_trials": 60, "max_seconds": seconds, "parallel": 2, "seed": 0}
            done = follow(client, str(client.submit(job)["id"]), console)
            return client.report_html(str(done["id"]))


def photograph(page_html: str, folder: Path, executable: str | None) -> list[Path]:
    """One picture per part of the page that has an id in PARTS."""
    written = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        page.set_content(page_html)
        for part, name in PARTS.items():
            section = page.locator(f"#{part}")
            if section.count():
                written.append(folder / f"{name}.png")
                section.screenshot(path=written[-1])
        browser.close()
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of search")
    parser.add_argument("--chromium", help="path of a browser; left out: Playwright's own")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bantam-pictures-") as folder:
        page = search(Path(folder), options.seconds, Console())
    for path in photograph(page, IMAGES, options.chromium):
        print(f"{path} {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
