"""The shell in this process: which image is shown when the user chooses faster than images are read."""

import asyncio
import threading

import pytest
from trame.app import get_server

from monai_sr_bundle.datasets.phantom import write_phantom_png


class IdleWorker:
    """A client of a worker that never answers."""

    def poll(self):
        return []

    def close(self):
        pass


@pytest.fixture
def openShell():
    """Return a function that makes a shell; it must be called within the event loop."""
    from SuperResolutionWeb.shell import Shell

    shells = []

    def make():
        shells.append(Shell(get_server(f"shell-{id(shells)}", client_type="vue3"), IdleWorker()))
        return shells[-1]

    yield make
    for shell in shells:
        shell.close()


@pytest.fixture
def folder(tmp_path):
    for name in ("one.png", "three.png", "two.png"):
        write_phantom_png(tmp_path / name, size=32)
    return tmp_path


def test_an_image_that_is_read_slowly_does_not_replace_one_that_was_chosen_later(openShell, folder):
    async def choose():
        shell = openShell()
        await shell.load(str(folder))
        fromFile, release = shell._sources.read, threading.Event()

        def read(number):
            if number == 1:
                assert release.wait(60)
            return fromFile(number)

        shell._sources.read = read
        shell.state.which = 1
        slow = asyncio.create_task(shell._onWhich(1))
        await asyncio.sleep(0)
        shell.state.which = 2
        await shell._onWhich(2)
        release.set()
        await slow
        return shell.state.name

    assert asyncio.run(choose()) == "two.png"


def test_a_path_that_is_searched_slowly_does_not_replace_one_that_was_opened_later(openShell, folder, monkeypatch):
    from SuperResolutionWeb import images

    release, ImageSources = threading.Event(), images.ImageSources

    def search(path):
        if path.endswith("one.png"):
            assert release.wait(60)
        return ImageSources(path)

    async def choose():
        shell = openShell()
        monkeypatch.setattr(images, "ImageSources", search)
        slow = asyncio.create_task(shell.load(str(folder / "one.png")))
        await asyncio.sleep(0)
        await shell.load(str(folder / "two.png"))
        release.set()
        await slow
        return shell.state.name

    assert asyncio.run(choose()) == "two.png"
