"""A `monai-sr` command in its own process; the panel never waits for it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from SuperResolutionLib import child_process
from SuperResolutionLib.child_process import ChildProcess
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.translation import _


class Command:
    """A running command; the caller's timer calls `step`.

    A subclass gives the command line in `words` and uses the output in `finish`.

    Args:
        failure: sentence that says what did not work: "The export cannot begin."
        files: files of the image; the command sees only these, in a folder.
        python: Python executable that has monai-sr-bundle. Default None: Slicer's own.
        environment: environment variables of the process. Default None: those that this Python needs.

    Attributes:
        message: reason of a failure; empty while it runs and after success.

    Raises:
        InputError: the command cannot start, and why; nothing was written.
    """

    def __init__(self, failure: str, files: Sequence[str], python=None, environment=None):
        python = python or child_process.pythonOfSlicer()
        self.message, self._failure, self._isCanceled = "", failure, False
        self._environment, self._process = environment or child_process.environmentFor(python), None
        try:
            self._folder = child_process.makeFolder()
            try:
                image = os.path.join(self._folder, "image")
                os.mkdir(image)
                self._command = [python, "-m", "monai_sr_bundle", *self.words(image)]
            except BaseException:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
        except OSError as error:
            raise InputError(self._describeStartFailure(error)) from error
        # On a file system without links, the thread copies the whole series.
        self._linking = threading.Thread(target=self._link, args=(files, image), daemon=True)
        self._linking.start()

    def words(self, image: str) -> list[str]:
        """Return the command and its options; `image` is the folder of the files. It may write next to this folder."""
        raise NotImplementedError

    def handleEvent(self, event: dict) -> None:
        """Handle a line of JSON that the command wrote."""

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        """Use the output of a successful command, or raise an InputError.

        Args:
            folder: parent of the folder `image`; it is removed afterwards.
            notes: lines that the command wrote to stderr.
        """

    def step(self) -> bool:
        """Handle the command's events. Return True while it runs."""
        if not self._folder or self._linking.is_alive():
            return bool(self._folder)
        if self._process is None and not (self._isCanceled or self.message):
            self._process = ChildProcess(self._command, self._environment, self._folder, child_process.parseEvent)
        if self._process is not None:
            isOver = self._process.pursue()
            for event in self._process.lines():
                self.handleEvent(event)
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
        """End the command; no partial files remain. `step` returns False once it is over."""
        self._isCanceled = True
        if self._process is not None:
            self._process.end()

    def close(self) -> None:
        """End the command and remove its folder. The process gets a moment to end by itself."""
        self.cancel()
        self._linking.join(child_process.PATIENCE)
        if self._process is not None:
            self._process.endAndWait()
        folder, self._folder = self._folder, ""
        shutil.rmtree(folder, ignore_errors=True)

    def _link(self, files: Sequence[str], image: str) -> None:
        try:
            for number, file in enumerate(files):
                if self._isCanceled:
                    return
                _link(file, os.path.join(image, f"{number:06}{Path(file).suffix or '.dcm'}"))
        except OSError as error:
            self.message = self._describeStartFailure(error)

    def _describeStartFailure(self, error: OSError) -> str:
        text = _("{failure} {reason}. Make room, and try again.")
        return text.format(failure=self._failure, reason=error.strerror or error)

    def _end(self, folder: str) -> None:
        process = self._process
        if self._isCanceled and (process is None or process.returnCode != 0):
            self.message = _("Canceled. Nothing was written.")
        elif self.message:
            return
        elif process.error:
            self.message = _("{failure} {reason}. Restart Slicer.").format(failure=self._failure, reason=process.error)
        else:
            notes = [line.removeprefix("monai-sr: ") for line in process.lastLines if line.strip()]
            if process.returnCode == 0:
                self.finish(folder, notes)
                return
            lastLine = notes[-1] if notes else f"{self._failure} ({process.returnCode})"
            self.message = lastLine.removeprefix("error: ")


def freePath(path: Path) -> str:
    """Return this path, or the same with a number, such that nothing exists there."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name} {number}"), number + 1
    return str(candidate)


def _link(file: str, name: str) -> None:
    """Link a file, or copy it on a file system without links."""
    try:
        os.symlink(os.path.abspath(file), name)
    except OSError:
        shutil.copyfile(file, name)
