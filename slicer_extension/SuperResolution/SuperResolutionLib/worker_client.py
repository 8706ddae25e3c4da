"""The client of the worker process: requests plans and enlarged regions from any event loop, without waiting.

    worker = WorkerClient(workerCommand())
    worker.enhance(array, region=[0, 1, 0, 128, 0, 128], modality="CXR")
    ...                                # by a timer, about every 20 ms
    for event in worker.poll():
        if event["event"] == "done": show(event["resultArray"])

It needs only numpy and the standard library; neither Qt nor Slicer. The first request starts the worker, and a new one
after each end. docs/worker.md describes the protocol.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import child_process
from .child_process import PATIENCE, ChildProcess, discard, environmentFor, makeFolder
from .errors import _

PROTOCOL = 1
READY_WITHIN = 60.0  # longest time in seconds from the start of the worker to its first line, on a slow disk
SILENT_WITHIN = 600.0  # longest time in seconds without an event while it works: a tile of a network takes some seconds
QUOTED_LINES = 3  # number of lines of the worker's stderr that a message quotes
Prepare = Callable[[np.ndarray], np.ndarray]


def workerCommand(python: str | None = None) -> list[str]:
    """Return the command line of a worker, of a Python for which monai-sr-bundle is installed; by default Slicer's own.

    ONNX Runtime starts in a second and needs no PyTorch.
    """
    python = python or child_process.pythonOfSlicer()
    return child_process.commandOf(python, "monai_sr_bundle.worker", "--backend", "onnx", "--device", "auto")


class ImageFile:
    """An image file that a thread writes, in half a second for a large CT; it takes the place of the `previous` one.

    `error` says why it could not be written.
    """

    def __init__(
        self, array: np.ndarray, path: str, key: Hashable, prepare: Prepare | None, previous: ImageFile | None
    ) -> None:
        self.path, self.key, self.error = path, key, ""
        self._thread = threading.Thread(target=self._write, args=(array, prepare, previous), daemon=True)
        self._thread.start()

    @property
    def isWritten(self) -> bool:
        """True once the thread has ended, also after an error."""
        return not self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the file is written."""
        self._thread.join(seconds)

    def _write(self, array: np.ndarray, prepare: Prepare | None, previous: ImageFile | None) -> None:
        if previous is not None:
            previous.wait()
            with suppress(OSError):  # on Windows, an ending process may hold it; then it goes with the private folder
                os.remove(previous.path)
        try:
            np.save(self.path, prepare(array) if prepare else array, allow_pickle=False)
        except MemoryError:
            self.error = _("The image does not fit into memory. Close other programs.")
        except OSError as error:
            text = _("the image could not be written to {folder} ({reason}). Make room there.")
            self.error = text.format(folder=os.path.dirname(self.path), reason=error.strerror or error)
        except ValueError as error:  # of `prepare`
            self.error = str(error)


@dataclass
class Request:
    """A request that is not answered yet: the fields of its JSON line, and its image if it has one."""

    fields: dict[str, Any]
    image: ImageFile | None
    isSent: bool = False


class WorkerClient:
    """A client of one worker process, which is asked one thing at a time.

    `folder` holds its arrays; it is private, and removed by `close` and at the end of this process. Every request is
    answered: a worker that is silent for too long is ended, and the request has failed.
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
        self._request: Request | None = None
        self._image: ImageFile | None = None
        self._events: list[dict[str, Any]] = []
        atexit.register(self.close)

    def ask(self, do: str, image: ImageFile | None = None, **fields: Any) -> None:
        """Request "bundles" or "plan" with the fields of docs/worker.md; for "enhance", see `enhance`."""
        assert self._request is None  # one thing at a time
        self._request = Request({"do": do, "id": next(self._numbers), **fields}, image)

    def enhance(self, array: np.ndarray, key: Hashable = None, prepare: Prepare | None = None, **fields: Any) -> None:
        """Request an enlarged region of an image ``[slices, rows, columns]`` by the fields of docs/worker.md.

        Equal keys promise equal pixels, which are not written again; None promises nothing. `prepare` converts the
        array, in a thread, to a type that the engine takes; a ValueError of it fails the request with its message.
        """
        image = self._image
        if image is None or image.error or key is None or image.key != key:
            path = os.path.join(self.folder, f"image{next(self._numbers)}.npy")
            self._image = ImageFile(array, path, key, prepare, previous=image)
        self.ask("enhance", self._image, **fields)

    def cancel(self) -> None:
        """Cancel the request, and return at once. If the worker has it already, this ends the process."""
        if self._request is not None and self._request.isSent:
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
            if process is self._process:
                self._watch(process, isOver)
        self._send()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End the worker and remove the folder. The processes get a moment to end by themselves."""
        atexit.unregister(self.close)
        self._request = None
        self.endProcess()
        for process in self._ending:
            process.endAndWait()
        if self._image is not None:
            self._image.wait(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self) -> None:
        """Send the request as soon as the worker is ready and the image is written."""
        request = self._request
        if request is None or request.isSent:
            return
        if self._process is None:
            self._process = ChildProcess(self._command, self._environment, self.folder, _parseEvent)
            self._isReady, self._lastHeard = False, time.monotonic()
        if not self._isReady or (request.image and not request.image.isWritten):
            return
        if request.image and request.image.error:
            self._fail("input", request.image.error)
            return
        if request.image:
            request.fields.update(array=request.image.path, out=os.path.join(self.folder, f"out{request.fields['id']}"))
            with suppress(OSError):  # the worker tells that it does not exist
                os.mkdir(request.fields["out"], 0o700)
        request.isSent, self._lastHeard = True, time.monotonic()
        self._process.send(json.dumps(request.fields))

    def _handle(self, event: dict[str, Any]) -> None:
        self._lastHeard = time.monotonic()
        name, request = event["event"], self._request
        if name == "ready" and event.get("protocol") == PROTOCOL:
            self._isReady = True
        elif name == "ready":
            text = _("monai-sr-bundle {version} does not fit this extension. Update the older of the two.")
            self._fail("installation", text.format(version=event.get("version")))
            self.endProcess()
        elif name == "failed" and event.get("id") is None:
            # The installation is broken, or a line was lost: the request will never be answered.
            self._fail(str(event.get("kind")), str(event.get("message")))
            self.endProcess()
        elif request is not None and event.get("id") == request.fields["id"]:
            self._events.append(event)
            if name != "progress":
                self._forgetRequest()

    def _watch(self, process: ChildProcess, isOver: bool) -> None:
        """Tell that the worker has ended by itself, or is silent."""
        limit = SILENT_WITHIN if self._isReady else READY_WITHIN
        isAwaited = not self._isReady or (self._request is not None and self._request.isSent)
        if isOver and process.error:
            text = _("{program} cannot be started ({reason}). Install it again.")
            message = text.format(program=self._command[0], reason=process.error)
        elif isOver:
            message = describeExit(process.returnCode, list(process.lastLines))
        elif isAwaited and time.monotonic() - self._lastHeard > limit:
            text = _("the worker was silent for {seconds:g} seconds. {lines} Try again, or restart Slicer.")
            message = text.format(seconds=limit, lines=_quoteLastLines(process.lastLines))
        else:
            return
        if isAwaited:
            self._fail("crash" if self._isReady else "installation", message)
        self.endProcess()

    def _fail(self, kind: str, message: str) -> None:
        if self._request is not None:
            self._events.append({"event": "failed", "kind": kind, "message": message})
        self._forgetRequest()

    def _forgetRequest(self) -> None:
        if self._request is not None and "out" in self._request.fields:
            discard(self._request.fields["out"])
        self._request = None


def describeExit(code: int | None, lastLines: Sequence[str]) -> str:
    """Return why the worker has ended, and what to do, by its return code and the last lines of its stderr."""
    if any("No module named" in line and "monai_sr_bundle" in line for line in lastLines):
        return _("monai-sr-bundle is not installed. Install it in the panel's section Installation.")
    if code in (-9, 128 + 9):  # a launcher reports a signal as 128 + n
        return _("the system has ended the worker, most often because memory ran out (signal 9). Choose a smaller "
                 "region, or close other programs.")  # fmt: skip
    text = _("the worker has ended with code {code}. {lines} Try again; if it happens again, report this message.")
    return text.format(code=code, lines=_quoteLastLines(lastLines))


def _quoteLastLines(lines: Iterable[str]) -> str:
    lastLines = [line.strip() for line in lines if line.strip()][-QUOTED_LINES:]
    return _("Its last output: {lines}.").format(lines=" | ".join(lastLines) or "–")


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
