"""A result as a derived DICOM series, by the package's own writer: `monai-sr enhance` on the files of its source.

The same model, seed, steps and region give the same pixels; headers, identity and the word on synthetic texture are
those of docs/dicom.md. The work is a process of its own, as the worker is.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from SuperResolutionLib import results
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.process import Process, environmentFor, pythonOfSlicer
from SuperResolutionLib.volumes import shapeOf

UIDS = "DICOM.instanceUIDs"
"""Attribute in which Slicer's DICOM reader leaves the instances of a volume."""


def filesOf(volumeNode, fileOf: Callable[[str], str]) -> list[str]:
    """The DICOM files that a volume was loaded from.

    Args:
        volumeNode: the source of a result.
        fileOf: gives the file of a SOP Instance UID, in Slicer ``slicer.dicomDatabase.fileForInstance``.

    Raises:
        InputError: it was not loaded from DICOM, or the files are gone.
    """
    uids = (volumeNode.GetAttribute(UIDS) or "").split()
    if not uids:
        raise InputError(
            f"'{volumeNode.GetName()}' was not loaded from DICOM, so there is no patient and study to write the result "
            "to. Save the result with File, Save instead, or load the source through the DICOM module."
        )
    files = [fileOf(uid) for uid in uids]
    missing = sum(1 for file in files if not file or not os.path.isfile(file))
    if missing:
        raise InputError(
            f"{missing} of {len(files)} DICOM files of '{volumeNode.GetName()}' are no longer where they were. "
            "Import them again in the DICOM module."
        )
    return files


def optionsOf(resultNode) -> list[str]:
    """The options of `monai-sr enhance` that give a result again.

    Raises:
        InputError: the source is gone, or the result shows some of its slices only, which a series cannot say.
    """
    source = results.existingSource(resultNode)
    k0, k1, r0, r1, c0, c1 = results.extentOf(resultNode)
    slices = shapeOf(source)[0]
    if (k0, k1) != (0, slices):
        raise InputError(
            f"'{resultNode.GetName()}' shows {k1 - k0} of the {slices} slices of its source. A series is written of "
            "all of them: enhance a box that goes through all slices, then export that."
        )
    told = results.reportOf(resultNode)["provenance"]
    options = ["--bundle", told["bundle"], "--seed", str(told["seed"]), "--backend", told["backend"]]
    options += ["--roi", *map(str, (c0, r0, c1, r1))]
    sampling = told.get("sampling") or {}
    for name in ("texture", "steps"):
        if sampling.get(name):
            options += [f"--{name}", str(sampling[name])]
    return options


class Export:
    """An export that runs; the caller's timer calls `step`.

    Args:
        resultNode: to be written.
        folder: in which a new folder is made for the files.
        fileOf: as `filesOf`.
        python: of the environment that has monai-sr-bundle; Slicer's own where None.
        environment: of the process; what this Python needs where None.

    Attributes:
        fraction: 0 to 1.
        written: the files, when it is done.
        message: why it failed; empty else.

    Raises:
        InputError: it cannot begin, and why; nothing was written.
    """

    def __init__(self, resultNode, folder, fileOf: Callable[[str], str], python=None, environment=None):
        files = filesOf(results.existingSource(resultNode), fileOf)
        options = optionsOf(resultNode)
        python = python or pythonOfSlicer()
        self.fraction, self.written, self.message = 0.0, [], ""
        self._links = tempfile.mkdtemp(prefix="sr-export-")
        out = _free(Path(folder) / resultNode.GetName())
        self._command = [python, "-m", "monai_sr_bundle", "enhance", self._links, out, *options, "--progress", "json"]
        self._environment = environment or environmentFor(python)
        self._process = None
        # Where a file system has no links, a whole series is copied.
        self._linking = threading.Thread(target=self._link, args=(files,), daemon=True)
        self._linking.start()

    def _link(self, files: list[str]) -> None:
        try:
            for number, file in enumerate(files):
                _link(file, os.path.join(self._links, f"{number:06}{Path(file).suffix or '.dcm'}"))
        except OSError as error:
            self.message = f"The export cannot begin: {error.strerror or error}. Make room, and try again."

    def step(self) -> bool:
        """Hear how far it is. True while it runs."""
        if self._process is None:
            if self._linking.is_alive():
                return True
            if self.message:  # or it was canceled meanwhile
                shutil.rmtree(self._links, ignore_errors=True)
                return False
            self._process = Process(self._command, self._environment, self._links, _understood)
        isOver = self._process.pursue()
        for event in self._process.lines():
            kind = event.get("event")
            if kind == "progress":
                self.fraction = float(event["fraction"])
            elif kind == "finished":
                self.written = list(event["written"])
            elif kind in ("failed", "error"):
                self.message = str(event.get("message") or event.get("error"))
        if not isOver:
            return True
        if self._links:
            shutil.rmtree(self._links, ignore_errors=True)
            self._links = ""
            if not self.written and not self.message:
                said = [line for line in self._process.lastLines if line.strip()]
                self.message = said[-1] if said else f"The export ended with code {self._process.returnCode}."
        return False

    def cancel(self) -> None:
        """End it; nothing half-written stays. `step` tells when it is over."""
        self.message = "Canceled. Nothing was written."
        if self._process is not None:
            self._process.end()


def _free(folder: Path) -> str:
    """A folder that is not there yet: this one, or with a number."""
    tried, number = folder, 2
    while tried.exists():
        tried, number = folder.with_name(f"{folder.name} {number}"), number + 1
    return str(tried)


def _link(file: str, name: str) -> None:
    """A folder of this series alone; without its copy where the file system can."""
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
