"""A child process whose lines wait to be read and whose whole group can be ended, without waiting.

It needs only the standard library; neither Qt nor Slicer. Threads read the pipes. Its use of taskkill on Windows is
untested.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

COMPUTER = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]  # others may use the same home
PATIENCE = 1.0  # seconds between SIGTERM and SIGKILL to a group; a running network does not react to SIGTERM
SLICER_VARIABLES = (
    "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "QT_PLUGIN_PATH",
)  # fmt: skip
"""Variables that Slicer's launcher sets: another Python would load Slicer's libraries instead of its own."""
_RUN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def pythonOfSlicer() -> str:
    """Return the launcher of Slicer's Python; outside Slicer, the Python that runs this."""
    return shutil.which("PythonSlicer") or sys.executable


def packagesOf(python: str) -> str:
    """Return the folder into which packages are installed for a Python, among the user's own data."""
    if os.name == "nt":
        data = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        data = os.path.expanduser("~/Library/Application Support")
    else:
        data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    name = os.path.normcase(python)  # on Windows, a launcher is told its path as it was typed
    return os.path.join(data, "monai-sr-bundle", hashlib.sha256(os.fsencode(name)).hexdigest()[:8])


def commandOf(python: str, module: str, *words: str, packages: str | None = None) -> list[str]:
    """Return the command line of a module in the packages of a Python, before or beside its own.

    Not by PYTHONPATH, before which Slicer's launcher puts its own folders.
    """
    return [python, "-c", _RUN, packages or packagesOf(python), module, *words]


def environmentFor(python: str) -> dict[str, str]:
    """Return the environment of this process, without `SLICER_VARIABLES` for another Python than Slicer's and this."""
    environment = dict(os.environ)
    isSlicers = os.path.splitext(os.path.basename(python))[0] == "PythonSlicer"
    if not isSlicers and os.path.realpath(python) != os.path.realpath(sys.executable):
        for name in SLICER_VARIABLES:
            environment.pop(name, None)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow Slicer down
    return environment


class ChildProcess:
    """A process that runs or has ended.

    Python looks for modules in `folder`, where it works, so that must be private to the caller. `parse` converts a line
    of stdout for `lines`, in the reading thread; it must not raise. `error` says why the process could not be started,
    and `lastLines` are those of its stderr.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: str, parse: Callable[[str], Any] = str
    ) -> None:
        self.error = ""
        self.lastLines: deque[str] = deque(maxlen=40)
        self._lines: deque[Any] = deque()
        self._endTime, self._isKilled = 0.0, False
        self._popen: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        options: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            self._popen = subprocess.Popen(
                list(command), env=dict(environment), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, encoding="utf-8", errors="replace", bufsize=1, **options,
            )  # fmt: skip
        except OSError as error:
            self.error = error.strerror or str(error)
            return
        for arguments in (self._popen.stdout, self._lines, parse), (self._popen.stderr, self.lastLines, str):
            self._readers.append(threading.Thread(target=_read, args=arguments, daemon=True))
            self._readers[-1].start()

    @property
    def isOver(self) -> bool:
        """True once the process has ended, or could not be started, and all its output was read; this never waits.

        A launcher may end before the process that it launched, so the end of the pipes decides. After a kill it does
        not: a process that has left the group may keep them open for ever.
        """
        return self._popen is None or (
            self.returnCode is not None and (self._isKilled or not any(each.is_alive() for each in self._readers))
        )

    @property
    def returnCode(self) -> int | None:
        """The return code: 0 for success, below 0 for a signal, None while the process runs."""
        return self._popen.poll() if self._popen else None

    def send(self, line: str) -> None:
        """Write a line to the stdin of the process, unless it has ended."""
        with suppress(OSError):
            self._popen.stdin.write(f"{line}\n")

    def closeInput(self) -> None:
        if self._popen:
            with suppress(OSError):  # it has ended
                self._popen.stdin.close()

    def lines(self) -> list[Any]:
        """Return the parsed lines since the last call."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

    def end(self) -> None:
        """Ask the whole group to end, and return at once; `pursue` enforces it."""
        if not (self._endTime or self.isOver):
            self._endTime = time.monotonic()
            self._signal("SIGTERM")

    def pursue(self) -> bool:
        """Kill the group if it has not ended after `PATIENCE`. Return True once it is over; this never waits."""
        isLate = self._endTime and time.monotonic() - self._endTime > PATIENCE
        if isLate and not (self._isKilled or self.isOver):
            self._isKilled = True
            self._signal("SIGKILL")
        if self.isOver:
            self.closeInput()
        return self.isOver

    def endAndWait(self) -> None:
        """End the process, and wait a moment: for use before this process itself ends."""
        self.end()
        limit = time.monotonic() + 2 * PATIENCE
        while not self.pursue() and time.monotonic() < limit:
            time.sleep(0.01)

    def _signal(self, name: str) -> None:
        if os.name == "nt":
            command = ["taskkill", "/F", "/T", "/PID", str(self._popen.pid)]
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return
        with suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._popen.pid, getattr(signal, name))


def _read(pipe: Any, lines: deque[Any], parse: Callable[[str], Any]) -> None:
    with pipe:
        for line in pipe:
            lines.append(parse(line.rstrip("\n")))


def parseEvent(line: str) -> dict[str, Any]:
    """Parse a line of JSON with the field "event"; any other line becomes ``{"event": "log", "text": line}``."""
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return {"event": "log", "text": line}


def makeFolder(parent: str | None = None) -> str:
    """Make a private folder whose name says which process it belongs to, by default among the temporary files."""
    return tempfile.mkdtemp(prefix=f"sr-{os.getpid()}-{COMPUTER}-", dir=parent)


def removeStaleFolders(parent: str | None = None) -> None:
    """Remove the folders of `makeFolder` whose processes, of this computer, are gone."""
    if os.name == "nt":  # os.kill with 0 would end the process on Windows
        return
    for folder in Path(parent or tempfile.gettempdir()).glob(f"sr-*-{COMPUTER}-*"):
        try:
            os.kill(int(folder.name.split("-")[1]), 0)
        except ProcessLookupError:
            discard(str(folder))
        except (OSError, ValueError, OverflowError):
            pass  # another user's, or not one of `makeFolder`


def discard(folder: str) -> None:
    """Remove a folder in a thread: a large file takes longer than a frame of Slicer's interface."""
    threading.Thread(target=shutil.rmtree, args=(folder, True), daemon=True).start()
