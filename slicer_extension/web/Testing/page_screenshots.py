"""Draws docs/viewer_*.png: the page at work on a drawn radiograph, in Chromium without a screen.

    .venv-web/bin/python slicer_extension/web/Testing/page_screenshots.py

What takes how long is printed.
"""

import tempfile
import time
from pathlib import Path

from browser import Browser, Server
from PIL import Image

from monai_sr_bundle.datasets.phantom import write_phantom_dicom

DOCS = Path(__file__).resolve().parents[3] / "docs"


def keep(browser, name):
    """A small picture: 256 colours are all that a grey page needs."""
    browser.type("path", "film.dcm")  # without this machine's folders
    with tempfile.TemporaryDirectory() as folder:
        browser.driver.save_screenshot(f"{folder}/page.png")
        picture = Image.open(f"{folder}/page.png").convert("RGB")
        picture.quantize(256).save(DOCS / f"viewer_{name}.png", optimize=True)


def draw(browser):
    keep(browser, "before")
    middle = [side / 2 for side in browser.picture().shape[1::-1]]
    browser.drag(middle, (middle[0] - 215, middle[1] - 90))
    browser.settled()
    browser.until(lambda: browser.isEnabled("run"), "the estimate")
    start = time.monotonic()
    browser.click("run")
    browser.until(lambda: browser.isShown("resultText"), "a result")
    print(f"click to result, 128 x 128 pixels: {time.monotonic() - start:.1f} s")
    browser.type("boxReader", "A. Reader")
    browser.click("kind-sideBySide")
    browser.until(lambda: browser.isShown("view-SuperResolutionAfter"), "two views")
    browser.settled("SuperResolutionAfter")
    keep(browser, "side_by_side")
    browser.click("kind-over")
    browser.until(lambda: browser.isShown("view-Red"), "one view")
    browser.type("tolerance", "100")
    browser.click("showBars")
    browser.settled()
    browser.click("addBox")
    browser.settled()
    middle = [side / 2 for side in browser.picture().shape[1::-1]]
    browser.drag(middle, (middle[0] - 200, middle[1] - 60))
    browser.until(lambda: "enhanced" in browser.text("boxText"), "figures in the box")
    browser.settled()
    keep(browser, "error_bars")


with tempfile.TemporaryDirectory() as folder:
    film = Path(folder) / "film.dcm"
    write_phantom_dicom(film, size=256, spacing_mm=1.6)
    server = Server(film, "--no-browser")
    print(f"command to address: {server.seconds:.1f} s")
    browser = Browser(Path(folder))
    start = time.monotonic()
    browser.driver.get(server.address)
    browser.until(lambda: browser.isEnabled("run"), "the page is ready")
    print(f"address to page ready: {time.monotonic() - start:.1f} s")
    browser.settled()
    try:
        draw(browser)
    finally:
        browser.close()
        server.end()
