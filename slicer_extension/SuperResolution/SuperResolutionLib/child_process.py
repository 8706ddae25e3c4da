"""A process beside Slicer that nobody waits for: its lines come through a queue, and its whole group can be ended.

Standard library alone, Python 3.9 or newer; neither Qt nor Slicer. Threads start it and read its pipes, and whoever
calls does the rest, from whatever event loop. On Windows a group is ended by taskkill, which has not been tried.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PATIENCE = 1.0
"""Seconds between asking a group to end (SIGTERM) and ending it (SIGKILL); a network at work hears nothing."""
LAST_LINES = 40
"""Of stderr that are kept."""
OF_SLICER = (
    "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "QT_PLUGIN_PATH",
)  # fmt: skip
"""What Slicer's launcher sets for itself: another Python would load Slicer's libraries instead of its own."""


def pythonOfSlicer() -> str:
    """The Python that packages for Slicer are installed into; outside Slicer, the one that runs this.

    PythonSlicer is a launcher that sets Slicer's environment and then runs Python as a process of its own.
    """
    return shutil.which("PythonSlicer") or sys.executable


def environmentFor(python: str, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which a Python finds its own libraries.

    Args:
        python: path of the executable.
        given: the environment to begin with; that of this process if None.

    Returns:
        For PythonSlicer and the Python that runs this, the one given; for another, without what Slicer's launcher has
        set for Slicer.
    """
    environment = dict(os.environ if given is None else given)
    ofSlicer = os.path.splitext(os.path.basename(python))[0] == "PythonSlicer"
    if not ofSlicer and os.path.realpath(python) != os.path.realpath(sys.executable):
        for name in OF_SLICER:
            environment.pop(name, None)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads take the time of Slicer's own
    return environment


class Process:
    """A process that is being started, runs, or has ended.

    Args:
        command: executable and arguments.
        environment: of it.
        folder: it runs in; Python looks for modules there, so it must be the caller's own.
        understand: makes what `lines` gives of a line of stdout, in the reading thread; an exception in it is a bug.

    Attributes:
        started: when, by `time.monotonic`.
        error: why it could not be started; empty if it could.
        lastLines: of its stderr.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        understand: Callable[[str], Any] = str,
    ) -> None:
        self.started = time.monotonic()
        self.error = ""
        self.lastLines: deque[str] = deque(maxlen=LAST_LINES)
        self._popen: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._understand = understand
        self._endAsked = 0.0
        self._lastSignal = ""
        self._inputClosed = False
        self._readers: list[threading.Thread] = []
        # Copying the tables of a process as large as Slicer takes longer than a frame of its interface.
        arguments = (list(command), dict(environment), folder)
        self._starter = threading.Thread(target=self._start, args=arguments, daemon=True)
        self._starter.start()

    @property
    def identity(self) -> int | None:
        """Its number in the system, which is that of its group; None before it is started."""
        return self._popen.pid if self._popen else None

    @property
    def isOver(self) -> bool:
        """Whether it has ended, or could not be started, and all it wrote was read; never waits.

        A launcher may have ended before what it launched: the pipes tell.
        """
        if self._starter.is_alive():
            return False
        return self._popen is None or (self.returnCode is not None and not any(map(_isAlive, self._readers)))

    @property
    def returnCode(self) -> int | None:
        """0 for success, below 0 for a signal; None while it runs."""
        return self._popen.poll() if self._popen else None

    def send(self, line: str) -> None:
        """Write a line to the stdin of a started process; nothing is said if it has ended, `isOver` tells."""
        try:
            self._popen.stdin.write(line.encode("utf-8") + b"\n")
            self._popen.stdin.flush()
        except (OSError, ValueError):
            return  # it has ended, or its stdin was closed

    def closeInput(self) -> None:
        """Tell it that nothing more will come; before it is started, as soon as it is."""
        self._inputClosed = True
        if self._popen:
            try:
                self._popen.stdin.close()
            except OSError:
                return  # it has ended

    def lines(self) -> list[Any]:
        """What was understood of the lines since the last call."""
        found = []
        while True:
            try:
                found.append(self._lines.get_nowait())
            except queue.Empty:
                return found

    def end(self) -> None:
        """Ask the whole group to end, and return at once; `pursue` sees to it."""
        if not self._endAsked:
            self._endAsked = time.monotonic()
            self._signal("SIGTERM")

    def pursue(self) -> bool:
        """Go on ending it without waiting: kill the group when it has had `PATIENCE`; True once it is over."""
        if self.isOver:
            self.closeInput()
            return True
        if self._endAsked and self._lastSignal != "SIGKILL" and time.monotonic() - self._endAsked > PATIENCE:
            self._signal("SIGKILL")
        return False

    def endAndWait(self, seconds: float = PATIENCE) -> None:
        """End it before this process itself ends."""
        self.end()
        limit = time.monotonic() + seconds
        while not self.isOver and time.monotonic() < limit:
            time.sleep(0.01)
        if not self.isOver:
            self._signal("SIGKILL")

    def _start(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        options: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            popen = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, **options,
            )  # fmt: skip
        except OSError as error:
            self.error = error.strerror or str(error)
            return
        self._popen = popen  # before its first line is read, which the caller may answer at once
        for pipe, keep in ((popen.stdout, self._keepOut), (popen.stderr, self.lastLines.append)):
            self._readers.append(threading.Thread(target=self._read, args=(pipe, keep), daemon=True))
            self._readers[-1].start()
        # What was asked for before there was a process to ask.
        if self._inputClosed:
            self.closeInput()
        if self._lastSignal:
            self._signal(self._lastSignal)

    def _read(self, pipe: Any, keep: Callable[[str], None]) -> None:
        with pipe:
            for line in pipe:
                keep(line.decode("utf-8", "replace").rstrip("\r\n"))

    def _keepOut(self, line: str) -> None:
        self._lines.put(self._understand(line))

    def _signal(self, name: str) -> None:
        """Send a signal to the group; `_start` sends it where there is no process yet."""
        self._lastSignal = name
        if self._popen is None:
            return
        if os.name == "nt":
            words = ["taskkill", "/F", "/T", "/PID", str(self.identity)]
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return
        try:
            os.killpg(self.identity, getattr(signal, name))
        except ProcessLookupError:
            return  # all of it has ended


def discard(path: str) -> None:
    """Remove a file or folder, in a thread: a large file takes longer than a frame of Slicer's interface."""
    threading.Thread(target=_remove, args=(path,), daemon=True).start()


def _remove(path: str) -> None:
    # What cannot be removed now, as a file that an ending process holds, goes with the private folder it lies in.
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        os.remove(path)
    except OSError:
        return


def _isAlive(thread: threading.Thread) -> bool:
    return thread.is_alive()
