"""Take the pictures of the service's page that docs/serving.md shows, in a real browser.

python docs/write_pictures.py demo

DEMO is the directory of `mutual3d demo`. Needs playwright (`pip install -e .[test]`) and a Chromium on PATH, or named by CHROMIUM.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from serving import serving  # noqa: E402  # it lies among the benchmarks

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Name of the file, width and height of the screen, and colours.
PICTURES = (("serving_page.png", 1200, 900, "light"), ("serving_page_phone.png", 390, 844, "dark"))


def take(browser: Browser, address: str, name: str, width: int, height: int, colours: str, sample: str) -> None:
    """Two budgets side by side on a sample, and where the network looked."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=colours)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.select_option("#sample", label=sample)
    page.locator("#panel-a .bars li").first.wait_for()
    page.check("#compare")
    page.locator("#panel-b .bars li").first.wait_for()
    page.check("#look")
    for side in "ab":
        page.locator(f"#panel-{side} .looks img").wait_for()
    page.screenshot(path=str(DOCS / name), full_page=True)
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", nargs="?", type=Path, default=Path("demo"), help="directory of the demo (default demo)")
    parser.add_argument("--sample", default="00000.mp4", help="of its test videos (default 00000.mp4)")
    options = parser.parse_args()
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"there is no browser on PATH: install one of {', '.join(BROWSERS)}, or name it in CHROMIUM")
    served = serving(options.demo / "out/adaptive.pyth", "--samples", options.demo / "data/test", "--runtime", "openvino")
    with served as service, sync_playwright() as driver:
        with driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"]) as browser:
            for picture in PICTURES:
                take(browser, service.address, *picture, options.sample)


if __name__ == "__main__":
    main()
