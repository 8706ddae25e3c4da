"""A command of the package, `monai-sr`, as a process of its own that the panel hears and never waits for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from SuperResolutionLib.errors import InputError
from SuperResolutionLib.process import Process, environmentFor, pythonOfSlicer


class Command:
    """A command that runs; the caller's timer calls `step`.

    A subclass makes its words in `words`, and takes what was made in `finish`.

    Args:
        what: it does, for messages: "The export".
        files: of the image it is about; the command sees them alone in a folder.
        python: of the environment that has monai-sr-bundle; Slicer's own where None.
        environment: of the process; what this Python needs where None.

    Attributes:
        message: why it failed; empty while it runs and where it went well.

    Raises:
        InputError: it cannot begin, and why; nothing was written.
    """

    def __init__(self, what: str, files: Sequence[str], python=None, environment=None):
        python = python or pythonOfSlicer()
        self.message, self._what = "", what
        try:
            self._folder = tempfile.mkdtemp(prefix="sr-command-")
            try:
                image = os.path.join(self._folder, "image")
                os.mkdir(image)
                for number, file in enumerate(files):
                    _link(file, os.path.join(image, f"{number:06}{Path(file).suffix or '.dcm'}"))
                words = self.words(image)
            except BaseException:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
        except OSError as error:
            raise InputError(f"{what} cannot begin: {error.strerror or error}. Make room, and try again.") from error
        self._process = Process(
            [python, "-m", "monai_sr_bundle", *words], environment or environmentFor(python), self._folder, _understood
        )

    def words(self, image: str) -> list[str]:
        """The command and its options; `image` is the folder of the files, beside which it may write."""
        raise NotImplementedError

    def hear(self, event: dict) -> None:
        """A line of JSON that it wrote."""

    def finish(self, folder: str, said: Sequence[str]) -> None:
        """It went well: take what it made.

        Args:
            folder: that holds `image`; it is removed after this.
            said: what it wrote to stderr, line by line.

        Raises:
            InputError: that cannot be used.
        """

    @property
    def isOver(self) -> bool:
        """Whether `step` has told the end."""
        return not self._folder

    def step(self) -> bool:
        """Hear how far it is. True while it runs."""
        isOver = self._process.pursue()
        for event in self._process.lines():
            self.hear(event)
        if not isOver:
            return True
        if self._folder:
            folder, self._folder = self._folder, ""
            said = [line.removeprefix("monai-sr: ") for line in self._process.lastLines if line.strip()]
            try:
                self._end(folder, said)
            except InputError as error:
                self.message = str(error)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return False

    def cancel(self) -> None:
        """End it; nothing half-written stays. `step` tells when it is over."""
        self.message = "Canceled. Nothing was written."
        self._process.end()

    def _end(self, folder: str, said: Sequence[str]) -> None:
        process = self._process
        if self.message:
            return
        if process.error:
            self.message = f"{self._what} cannot begin: {process.error}. Restart Slicer."
        elif process.returnCode:
            lastLine = said[-1] if said else f"{self._what} ended with code {process.returnCode}."
            self.message = lastLine.removeprefix("error: ")
        else:
            self.finish(folder, said)


def freePath(path: Path) -> str:
    """A place where nothing is yet: this one, or with a number."""
    tried, number = path, 2
    while tried.exists():
        tried, number = path.with_name(f"{path.name} {number}"), number + 1
    return str(tried)


def _link(file: str, name: str) -> None:
    """A folder of this image alone; without its copy where the file system can."""
    try:
        os.symlink(os.path.abspath(file), name)
    except OSError:
        shutil.copyfile(file, name)


def _understood(line: str) -> dict:
    try:
        event = json.loads(line)
    except ValueError:
        return {"event": "log", "text": line}
    return event if isinstance(event, dict) else {"event": "log", "text": line}
