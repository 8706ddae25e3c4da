"""One page in one browser for all tests; each test opens its image anew, and nothing of the last one is left."""

import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
EXTENSION = HERE.parents[1]
sys.path[:0] = [str(HERE), str(EXTENSION / "web"), str(EXTENSION / "SuperResolution"), str(EXTENSION.parent)]


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """A drawn radiograph of 256 by 256 pixels of 1.6 mm."""
    from monai_sr_bundle.datasets.phantom import write_phantom_dicom

    path = tmp_path_factory.mktemp("a path with spaces") / "film.dcm"
    write_phantom_dicom(path, size=256, spacing_mm=1.6)
    return path


@pytest.fixture(scope="session")
def server(film):
    from browser import Server

    server = Server(film, "--no-browser")
    yield server
    code, _out, err = server.end()
    assert (code, err) == (0, "")


@pytest.fixture(scope="session")
def browser(server, tmp_path_factory):
    """The page, ready."""
    from browser import Browser

    browser = Browser(tmp_path_factory.mktemp("downloads"))
    browser.driver.get(server.address)
    browser.until(lambda: browser.isEnabled("run"), "the page is ready")
    yield browser
    browser.close()


@pytest.fixture
def page(browser, film):
    """The page with the film, a box of 128 by 128 pixels in its middle, and nothing else."""
    browser.until(lambda: not browser.isShown("progress"), "the work of the last test ends")
    for name in ("live", "showBars", "showMask"):
        if browser.there(name).is_selected():
            browser.click(name)
    browser.open(film)
    browser.until(lambda: not browser.isShown("result-section") and browser.isEnabled("run"), "the film is open")
    browser.click("region-box")
    for path in browser.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    browser.settled()
    return browser
