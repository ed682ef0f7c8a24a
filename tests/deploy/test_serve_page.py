"""The page of the service in a real browser, on a desktop's and a phone's screen, with a camera that the browser makes up."""

import base64
import os
import re
import shutil
from pathlib import Path

import pytest
from services import running, settings_of, write_bundle
from videos import moving_frames, write_video

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")
expect = sync_api.expect
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"there is no browser on PATH ({', '.join(BROWSERS)})")
SMALL, LARGE = "0.5-16-2", "1-24-4"
# Where screenshots are kept, to be looked at.
PICTURES = os.environ.get("SERVE_PICTURES")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "samples").mkdir()
    write_video(folder / "samples" / "bar.mp4", moving_frames(60))
    with running(settings_of(write_bundle(folder), samples=str(folder / "samples"), max_bytes=400_000)) as (_, found):
        yield found


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        with driver.chromium.launch(executable_path=BROWSER, args=FLAGS) as found:
            yield found


@pytest.fixture(params=[(1200, 900), (390, 844)], ids=["desktop", "phone"])
def page(browser, address, request):
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    context.grant_permissions(["camera"], origin=address)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    yield page
    assert problems == []
    context.close()


def keep_picture(page, name):
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def first_bar(page, panel="a"):
    return page.locator(f"#panel-{panel} .bars li").first


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_a_dropped_clip_is_answered_and_the_slider_moves_along_the_front(page, tmp_path):
    assert LARGE in page.locator("#row-a").inner_text() and "you are here" in page.locator("#plot").text_content()
    data = base64.b64encode(write_video(tmp_path / "a.mp4", moving_frames(30)).read_bytes()).decode()
    dropped = page.evaluate_handle(
        """text => { const held = new DataTransfer(), bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                     held.items.add(new File([bytes], "a.mp4", { type: "video/mp4" })); return held; }""", data,
    )  # fmt: skip
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    first_bar(page).wait_for()
    assert LARGE in page.locator("#panel-a h3").inner_text()
    assert "Looked at seconds" in page.locator("#panel-a").inner_text()
    assert page.locator("#panel-a .bars li").count() == 2
    # By the keyboard.
    page.focus("#budget-a")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#panel-a h3")).to_contain_text(SMALL)
    assert SMALL in page.locator("#row-a").inner_text() and "milliseconds" in page.get_attribute("#budget-a", "aria-valuetext")
    # And on the plot.
    page.locator("#plot .point").nth(1).dispatch_event("click")
    expect(page.locator("#panel-a h3")).to_contain_text(LARGE)
    assert overflow(page) <= 0 and page.locator("#problem").is_hidden()


def test_two_budgets_stand_side_by_side(page):
    page.select_option("#sample", label="bar.mp4")
    first_bar(page).wait_for()
    page.check("#compare")
    first_bar(page, "b").wait_for()
    assert SMALL in page.locator("#panel-b h3").inner_text() and LARGE in page.locator("#panel-a h3").inner_text()
    assert "B: you are here" in page.locator("#plot").text_content()
    keep_picture(page, f"page_{page.viewport_size['width']}")
    assert overflow(page) <= 0
    page.check("#look")
    for side in "ab":
        page.locator(f"#panel-{side} .looks img").wait_for()
    picture = page.get_attribute("#panel-a .looks img", "src")
    slider = page.locator("#panel-a .looks input")
    slider.focus()
    page.keyboard.press("ArrowLeft" if int(slider.input_value()) else "ArrowRight")
    assert page.get_attribute("#panel-a .looks img", "src") != picture and page.locator("#panel-a .looks .now").count() == 1
    keep_picture(page, f"looks_{page.viewport_size['width']}")
    assert overflow(page) <= 0
    page.uncheck("#look")
    expect(page.locator(".looks")).to_have_count(0)
    page.click("#theme")
    keep_picture(page, f"other_theme_{page.viewport_size['width']}")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert dark != page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_what_is_seen_when_stands_under_the_answer_and_leads_there(page):
    page.select_option("#sample", label="bar.mp4")
    first_bar(page).wait_for()
    page.check("#when")
    segment = page.locator("#panel-a .when li button").first
    segment.wait_for()
    assert re.match(r"(right|down) \d+ %, 0\.0 to \d\.\d s", segment.inner_text()) and "windows" in page.locator("#panel-a .when figcaption").inner_text()
    page.evaluate("document.getElementById('video').currentTime = 1")
    segment.click()
    page.wait_for_function("document.getElementById('video').currentTime === 0")
    keep_picture(page, f"when_{page.viewport_size['width']}")
    assert overflow(page) <= 0
    page.uncheck("#when")
    expect(page.locator(".when")).to_have_count(0)


def test_the_webcam_is_answered_within_its_deadline(page):
    page.click("#webcam")
    first_bar(page).wait_for()
    expect(page.locator("#panel-a")).to_contain_text(re.compile(r"Seconds \d"))
    assert page.get_attribute("#webcam", "aria-pressed") == "true"
    keep_picture(page, f"webcam_{page.viewport_size['width']}")
    page.fill("#deadline", "400")
    page.dispatch_event("#deadline", "change")
    page.wait_for_timeout(500)
    first_bar(page).wait_for()
    page.click("#webcam")
    assert page.get_attribute("#webcam", "aria-pressed") == "false" and page.locator("#problem").is_hidden()


def test_what_goes_wrong_is_told(page, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video at all")
    page.set_input_files("#file", tmp_path / "no.mp4")
    page.locator("#problem").wait_for()
    assert page.locator("#problem").inner_text().startswith("Cannot read the upload: it is not a video")
    keep_picture(page, f"problem_{page.viewport_size['width']}")
    (tmp_path / "large.mp4").write_bytes(bytes(600_000))
    page.set_input_files("#file", tmp_path / "large.mp4")
    expect(page.locator("#problem")).to_contain_text("larger than")
    page.set_input_files("#file", write_video(tmp_path / "a.mp4", moving_frames(30)))
    first_bar(page).wait_for()
    assert page.locator("#problem").is_hidden()
