"""A real `monai-sr view` and a real Chromium, for tests and screenshots.

Selenium drives them: it is pip alone, and Debian brings its driver with the browser, so that nothing is downloaded from
elsewhere.
"""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = float(os.environ.get("SUPERRESOLUTION_PATIENCE", "120"))
"""Seconds until something must have happened on a slow machine; nothing is measured by it."""
SIZE = (1320, 1080)
NEWEST = """
const done = arguments[arguments.length - 1];
const image = document.querySelector("#" + arguments[0] + " img");
if (!image || !image.src) { done(null); }
fetch(image.src).then(response => response.blob()).then(blob => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
}).catch(() => done(null));
"""
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--force-device-scale-factor=1",
)  # fmt: skip


class Server:
    """`monai-sr view` as a process of its own.

    Args:
        words: words of its command line.
        environment: beside that of this process.
    """

    def __init__(self, *words, **environment):
        start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monai_sr_bundle", "view", *map(str, words)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **environment},
            # As in a terminal. Tests that a script runs in the background would inherit that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        self.told = [self.process.stdout.readline(), self.process.stdout.readline()]
        match = re.match(r"Open (http://127\.0\.0\.1:(\d+)/\S+)\n", self.told[0])
        if not match:
            raise AssertionError(f"it printed {self.told}\n{self.process.communicate()[1]}")
        self.address, self.port = match[1], int(match[2])
        self.seconds = time.monotonic() - start

    def end(self, how=signal.SIGINT):
        """Returns exit code, stdout and stderr."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


class Browser:
    """Chromium without a screen.

    Args:
        folder: for what it downloads.
    """

    def __init__(self, folder: Path):
        program, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not program or not driver:
            raise FileNotFoundError(
                "The page is tested in Chromium, which is not here (Debian: apt install chromium chromium-driver)."
            )
        self.folder = folder
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-")
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={self._profile.name}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def close(self):
        self.driver.quit()
        self._profile.cleanup()

    def until(self, holds, what: str):
        """Wait until something holds. Returns what it gave."""
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                value = holds()
            # Drawn anew between two questions, or something that still moves lies over it.
            except (StaleElementReferenceException, ElementClickInterceptedException):
                value = None
            if value:
                return value
            assert time.monotonic() < limit, f"{what} did not happen; the page says: {self.text('message')!r}"
            time.sleep(0.03)

    # What is on the page.

    def there(self, name: str):
        elements = self.driver.find_elements(By.ID, name)
        return elements[0] if elements else None

    def isShown(self, name: str) -> bool:
        element = self.there(name)
        return element is not None and element.is_displayed()

    def isEnabled(self, name: str) -> bool:
        element = self.there(name)
        return element is not None and element.is_enabled()

    def text(self, name: str) -> str:
        element = self.there(name)
        return element.text if element is not None and element.is_displayed() else ""

    def value(self, name: str) -> str:
        return self.there(name).get_attribute("value")

    def picture(self, view: str = "Red") -> np.ndarray:
        """Return the picture of a view: ``[rows, columns, 3]`` uint8."""
        return self._frame(view)[1]

    def settled(self, view: str = "Red", unlike: np.ndarray | None = None) -> np.ndarray:
        """The picture of a view at rest, which is a PNG of its size, and other than an earlier one."""

        def atRest():
            kind, before = self._frame(view)
            size = self.there(f"view-{view}").size
            if max(abs(before.shape[1] - size["width"]), abs(before.shape[0] - size["height"])) > 2:
                return None
            if kind != "image/png" or (unlike is not None and same(before, unlike)):
                return None
            time.sleep(0.4)
            return [before] if same(before, self.picture(view)) else None

        return self.until(atRest, f"a picture at rest in {view}{' that is another' * (unlike is not None)}")[0]

    def _frame(self, view: str) -> tuple[str, np.ndarray]:
        """The picture that the server has sent last, byte by byte, and its kind."""
        self.until(lambda: self.isShown(f"view-{view}"), f"view {view} is shown")

        def whole():
            picture = self.driver.execute_async_script(NEWEST, f"view-{view}")
            try:
                content = base64.b64decode(picture.split(",", 1)[1])
                return picture[5:].split(";")[0], np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            except (AttributeError, UnidentifiedImageError):  # nothing was sent yet
                return None

        return self.until(whole, "a picture")

    def requests(self) -> set[str]:
        """Addresses that the page has asked for since the last call, by HTTP or as a socket."""
        addresses = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            address = message["params"].get("request", {}).get("url") or message["params"].get("url") or ""
            if message["method"].startswith("Network.") and address.startswith(("http", "ws")):
                addresses.add(address)
        return addresses

    def received(self) -> bytes:
        """Return what the server has sent through sockets since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        frames = [one["params"]["response"] for one in messages if one["method"] == "Network.webSocketFrameReceived"]
        return b"".join(base64.b64decode(frame["payloadData"]) for frame in frames if frame["opcode"] == 2)

    # What a person does.

    def click(self, name: str):
        self.until(lambda: self.isEnabled(name), f"'{name}' can be clicked")
        element = self.there(name)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, name: str, text: str):
        element = self.there(name)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(text)

    def slideToEnd(self, name: str, key=Keys.END):
        """Move a slider by keyboard."""
        self.there(name).find_element(By.CSS_SELECTOR, "[role=slider]").send_keys(key)

    def slide(self, name: str, thumb: int, by: int):
        """Drag one of a slider's thumbs by some pixels."""
        element = self.there(name).find_elements(By.CSS_SELECTOR, "[role=slider]")[thumb]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).drag_and_drop_by_offset(element, by, 0).perform()

    def choose(self, name: str, title: str):
        """An entry of a list that opens."""
        field = "ancestor::div[contains(@class, 'v-field')][1]"  # it lies over its input
        self.there(name).find_element(By.XPATH, field).click()
        entries = "//div[contains(@class, 'v-overlay--active')]//div[contains(@class, 'v-list-item-title')]"
        entry = f"{entries}[normalize-space()='{title}']"

        def chosen():
            elements = self.driver.find_elements(By.XPATH, entry)
            if elements:
                elements[0].click()
            return bool(elements)

        self.until(chosen, f"'{title}' in the list")

    def drag(self, begin, end, view: str = "Red", button=0):
        """Drag with the mouse; places as column and row of a view's picture."""
        left, top = self.corner(view)
        actions = ActionChains(self.driver, duration=20)
        mouse = actions.w3c_actions.pointer_action
        mouse.move_to_location(round(left + begin[0]), round(top + begin[1]))
        mouse.pointer_down(button=button)
        for step in np.linspace(0, 1, 9)[1:]:
            column, row = np.add(begin, step * np.subtract(end, begin))
            mouse.move_to_location(round(left + column), round(top + row))
            mouse.pause(0.03)
        mouse.pointer_up(button=button)
        actions.perform()

    def hover(self, position, view: str = "Red"):
        left, top = self.corner(view)
        actions = ActionChains(self.driver, duration=20)
        for shift in (-8, 0):
            mouse = actions.w3c_actions.pointer_action
            mouse.move_to_location(round(left + position[0] + shift), round(top + position[1]))
            mouse.pause(0.1)
        actions.perform()

    def corner(self, view: str):
        rectangle = self.driver.execute_script(
            "const r = arguments[0].getBoundingClientRect(); return [r.left, r.top]", self.there(f"view-{view}")
        )
        return rectangle

    def open(self, path):
        """Type the path of an image and press Open."""
        self.type("path", str(path))
        self.click("load")

    def downloaded(self, name: str) -> Path:
        path = self.folder / name
        return self.until(lambda: path.is_file() and path.stat().st_size and path, f"the download of {name}")


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def changed(one: np.ndarray, other: np.ndarray, by: int = 3) -> np.ndarray:
    """Mark the pixels where two pictures differ: ``[rows, columns]`` bool."""
    return np.abs(one.astype(int) - other).max(axis=2) > by
