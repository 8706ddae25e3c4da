"""A command of the package, `monai-sr`, as a process of its own that the panel hears and never waits for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from SuperResolutionLib.child_process import Process, environmentFor, pythonOfSlicer
from SuperResolutionLib.errors import InputError


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
        self.message, self._what, self._isCanceled = "", what, False
        self._environment, self._process = environment or environmentFor(python), None
        try:
            self._folder = tempfile.mkdtemp(prefix="sr-command-")
            try:
                image = os.path.join(self._folder, "image")
                os.mkdir(image)
                self._command = [python, "-m", "monai_sr_bundle", *self.words(image)]
            except BaseException:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
        except OSError as error:
            raise InputError(self._cannotBegin(error)) from error
        # Where a file system has no links, a whole series is copied.
        self._linking = threading.Thread(target=self._link, args=(files, image), daemon=True)
        self._linking.start()

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

    def step(self) -> bool:
        """Hear how far it is. True while it runs."""
        if not self._folder or self._linking.is_alive():
            return bool(self._folder)
        if self._process is None and not (self._isCanceled or self.message):
            self._process = Process(self._command, self._environment, self._folder, _understood)
        if self._process is not None:
            isOver = self._process.pursue()
            for event in self._process.lines():
                self.hear(event)
            if not isOver:
                return True
        folder, self._folder = self._folder, ""
        try:
            self._end(folder)
        except InputError as error:
            self.message = str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return False

    def cancel(self) -> None:
        """End it; nothing half-written stays. `step` tells when it is over, and `message` whether it was in time."""
        self._isCanceled = True
        if self._process is not None:
            self._process.end()

    def _link(self, files: Sequence[str], image: str) -> None:
        try:
            for number, file in enumerate(files):
                _link(file, os.path.join(image, f"{number:06}{Path(file).suffix or '.dcm'}"))
        except OSError as error:
            self.message = self._cannotBegin(error)

    def _cannotBegin(self, error: OSError) -> str:
        return f"{self._what} cannot begin: {error.strerror or error}. Make room, and try again."

    def _end(self, folder: str) -> None:
        process = self._process
        if self._isCanceled and (process is None or process.returnCode != 0):
            self.message = "Canceled. Nothing was written."
        elif self.message:
            return
        elif process.error:
            self.message = f"{self._what} cannot begin: {process.error}. Restart Slicer."
        else:
            said = [line.removeprefix("monai-sr: ") for line in process.lastLines if line.strip()]
            if process.returnCode == 0:
                self.finish(folder, said)
                return
            lastLine = said[-1] if said else f"{self._what} ended with code {process.returnCode}."
            self.message = lastLine.removeprefix("error: ")


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
