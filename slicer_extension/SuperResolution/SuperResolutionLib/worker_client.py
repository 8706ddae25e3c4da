"""The client of the worker process: requests plans and enlarged regions from any event loop, without waiting.

It needs neither Qt nor Slicer. docs/worker.md describes the protocol.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import numpy as np

from . import child_process
from .child_process import PATIENCE, ChildProcess, discard, environmentFor, makeFolder
from .errors import InputError, _

PROTOCOL = 1
READY_WITHIN = 60.0  # longest time in seconds from the start of the worker to its first line, on a slow disk
SILENT_WITHIN = 3600.0  # longest time in seconds without an event while it works: large results are written in minutes
Prepare = Callable[[np.ndarray], np.ndarray]


def workerCommand(python: str | None = None) -> list[str]:
    """Return the command line of a worker of a Python, by default Slicer's own; ONNX Runtime starts in a second."""
    python = python or child_process.pythonOfSlicer()
    return child_process.commandOf(python, "monai_sr_bundle.worker", "--backend", "onnx", "--device", "auto")


class WorkerClient:
    """A client of one worker process, which is asked one thing at a time; a timer calls `poll`, about every 20 ms.

    The first request starts the worker, and a new one after each end. `folder` holds its arrays; it is private, and
    removed by `close` and at the end of this process. Every request is answered: a worker that is silent for too long
    is ended, and the request has failed.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = environment or environmentFor(self._command[0])
        child_process.removeStaleFolders()
        self.folder = makeFolder()
        self._numbers = itertools.count(1)
        self._process: ChildProcess | None = None
        self._isReady, self._lastHeard = False, 0.0
        self._ending: list[ChildProcess] = []
        self._request: dict[str, Any] | None = None
        self._isSent = False  # True for a request that is not answered yet
        self._writer = ThreadPoolExecutor(1)
        self._image: Future[None] | None = None
        self._imagePath, self._imageKey = "", None
        self._events: list[dict[str, Any]] = []
        atexit.register(self.close)

    def ask(self, do: str, **fields: Any) -> None:
        """Request "bundles" or "plan" with the fields of docs/worker.md; for "enhance", see `enhance`."""
        assert self._request is None  # one thing at a time
        self._request = {"do": do, "id": next(self._numbers), **fields}

    def enhance(self, array: np.ndarray, key: Hashable = None, prepare: Prepare | None = None, **fields: Any) -> None:
        """Request an enlarged region of an image ``[slices, rows, columns]`` by the fields of docs/worker.md.

        Equal keys promise equal pixels, which are not written again; None promises nothing. `prepare` converts the
        array, in a thread, to a type that the engine takes; a ValueError of it fails the request with its message.
        """
        if key is None or key != self._imageKey or (self._image.done() and self._image.exception()):
            previous, self._imageKey = self._imagePath, key
            self._imagePath = os.path.join(self.folder, f"image{next(self._numbers)}.npy")
            self._image = self._writer.submit(_writeImage, array, self._imagePath, prepare, previous)
        self.ask("enhance", **fields)

    def cancel(self) -> None:
        """Cancel the request, and return at once. If the worker has it already, this ends the process."""
        if self._isSent:
            self.endProcess()
        self._forgetRequest()

    def endProcess(self) -> None:
        """End the worker. The next request starts a new one."""
        if self._process is not None:
            self._process.end()
            self._ending.append(self._process)
            self._process = None

    @property
    def isEnding(self) -> bool:
        """True while a canceled process has not ended; `poll` sees to that."""
        return bool(self._ending)

    def poll(self) -> list[dict[str, Any]]:
        """Return the worker's answers since the last call, in order; this never waits.

        "done" has its arrays as `resultArray` and `errorBarsArray`. "failed" tells also what the worker cannot tell.
        """
        self._ending = [process for process in self._ending if not process.pursue()]
        process = self._process
        if process is not None:
            isOver = process.isOver  # before the lines, so that none is missed
            for event in process.lines():
                self._handle(event)
            isAwaited = self._isSent or not self._isReady
            limit = SILENT_WITHIN if self._isReady else READY_WITHIN
            isSilent = isAwaited and time.monotonic() - self._lastHeard > limit
            if process is self._process and (isOver or isSilent):
                if isAwaited:
                    self._fail("crash" if self._isReady else "installation", self._describeProblem(process))
                self.endProcess()
        self._send()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End the worker and remove the folder. The processes get a moment to end by themselves."""
        atexit.unregister(self.close)
        self._request, self._isSent = None, False  # not by `discard`: Python starts no thread while it ends
        self.endProcess()
        for process in self._ending:
            process.endAndWait()
        if self._image is not None:
            wait([self._image], PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self) -> None:
        """Send the request as soon as the worker is ready and the image is written."""
        request = self._request
        if request is None or self._isSent:
            return
        if self._process is None:
            self._process = ChildProcess(self._command, self._environment, self.folder, _parseEvent)
            self._isReady, self._lastHeard = False, time.monotonic()
        image = self._image if request["do"] == "enhance" else None
        if not self._isReady or (image and not image.done()):
            return
        if image and image.exception():
            self._fail("input", str(image.exception()))
            return
        if image:
            request.update(array=self._imagePath, out=os.path.join(self.folder, f"out{request['id']}"))
            with suppress(OSError):  # the worker tells that it does not exist
                os.mkdir(request["out"], 0o700)
        self._isSent, self._lastHeard = True, time.monotonic()
        self._process.send(json.dumps(request))

    def _handle(self, event: dict[str, Any]) -> None:
        self._lastHeard = time.monotonic()
        name, request = event["event"], self._request
        if name == "ready" and event.get("protocol") == PROTOCOL:
            self._isReady = True
        elif name == "ready":
            text = _("monai-sr-bundle {version} does not fit this extension. Update the older of the two.")
            self._fail("installation", text.format(version=event.get("version")))
            self.endProcess()
        elif name == "failed" and event.get("id") is None:  # the request will never be answered
            self._fail(str(event.get("kind")), str(event.get("message")))
            self.endProcess()
        elif request is not None and event.get("id") == request["id"]:
            self._events.append(event)
            if name != "progress":
                self._forgetRequest()

    def _describeProblem(self, process: ChildProcess) -> str:
        """Return why the worker does not answer, and what to do."""
        lines, code = [line.strip() for line in list(process.lastLines) if line.strip()], process.returnCode
        if process.error:
            text = _("{program} cannot be started ({reason}). Install it again.")
        elif any("No module named" in line and "monai_sr_bundle" in line for line in lines):
            text = _("monai-sr-bundle is not installed. Install it in the panel's section Installation.")
        elif code in (-9, 128 + 9):  # a launcher reports a signal as 128 + n
            text = _("the system has ended the worker, most often because memory ran out (signal 9). Choose a smaller "
                     "region, or close other programs.")  # fmt: skip
        elif code is None:
            text = _("the worker does not answer. Its last output: {lines}. Try again, or restart Slicer.")
        else:
            text = _("the worker has ended with code {code}. Its last output: {lines}. Try again; if it happens again, "
                     "report this message.")  # fmt: skip
        quoted = " | ".join(lines[-3:]) or "–"
        return text.format(program=self._command[0], reason=process.error, code=code, lines=quoted)

    def _fail(self, kind: str, message: str) -> None:
        if self._request is not None:
            self._events.append({"event": "failed", "kind": kind, "message": message})
        self._forgetRequest()

    def _forgetRequest(self) -> None:
        if self._request is not None and "out" in self._request:
            discard(self._request["out"])
        self._request, self._isSent = None, False


def _writeImage(array: np.ndarray, path: str, prepare: Prepare | None, previous: str) -> None:
    """Write an image file, in half a second for a large CT, in place of the previous one."""
    with suppress(OSError):  # on Windows, an ending process may hold it; then it goes with the private folder
        os.remove(previous)
    try:
        np.save(path, prepare(array) if prepare else array, allow_pickle=False)
    except (OSError, MemoryError) as error:
        text = _("the image could not be written to {path} ({reason}). Make room there, or close other programs.")
        raise InputError(text, path=path, reason=error) from error


def _parseEvent(line: str) -> dict[str, Any]:
    """Parse a line as an event and read its arrays, in the reading thread so that Slicer's thread does not wait."""
    event = child_process.parseEvent(line)
    if event["event"] != "done":
        return event
    try:
        for name in ("result", "errorBars"):
            path = event.get(name)
            event[f"{name}Array"] = None if path is None else np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        text = _("the result could not be read ({kind}). Choose a smaller region, or make room.")
        message = text.format(kind=type(error).__name__)
        return {"event": "failed", "id": event.get("id"), "kind": "output", "message": message}
    return event
