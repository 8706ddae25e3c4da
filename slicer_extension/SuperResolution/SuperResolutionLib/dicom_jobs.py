"""`monai-sr` commands in processes of their own, on the DICOM files of a volume; the panel never waits for them.

A result becomes a derived series: the same model, seed, steps and region give the same pixels. Anomaly boxes become a
Structured Report (TID 1500). docs/dicom.md describes the headers, the identity and the label of synthetic texture.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from SuperResolutionLib import box_nodes, child_process, result_nodes, volumes
from SuperResolutionLib.box import Box, BoxError
from SuperResolutionLib.child_process import ChildProcess
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.headers import filesOf, openDatabase, requireSameVoxels, slicesOf
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading, Tool, format_readings, parse_readings

TOOL = Tool("3D Slicer")
IMAGE = "{image}"  # word of a command line that stands for the folder of the DICOM files
_RESERVED = r'[<>:"/\\|?*]'  # characters that the name of a file cannot have on Windows or elsewhere


class Command:
    """Commands that run one after another in a private folder; the caller's timer calls `step`.

    `fraction` is the progress, 0 to 1, `message` the reason of a failure, else empty, and `summary` the text for the
    user after success. The constructor raises an InputError if the commands cannot start; nothing was written then.
    The generator `_work` of a subclass yields while `_run` does, then uses the output of the commands.

    Args:
        volumeNode: volume from DICOM, whose files lie in the folder `IMAGE` of the command lines.
        commands: words of each command line.
        readings: text of the file `boxes.json` in the private folder.
        parent: folder that gets the private folder, by default that of temporary files.
        python: executable that has monai-sr-bundle, by default Slicer's own.
    """

    _comparing = ()  # generator of a check before the commands, that yields between its parts

    def __init__(self, volumeNode, commands, readings="", parent=None, python=None, environment=None):
        self.fraction, self.message, self.summary = 0.0, "", ""
        self._python = python or child_process.pythonOfSlicer()
        self._environment = environment or child_process.environmentFor(self._python)
        self._commands, self._process, self._isCanceled = commands, None, False
        self._folders, self._steps = [], self._work()
        self._linking = ThreadPoolExecutor(1).submit(self._prepare, filesOf(volumeNode), readings, parent)

    def step(self) -> bool:
        """Handle what the commands have written. Return True while something remains to be done."""
        try:
            isResting = self._linking.done() and (self._process is None or self._process.pursue())
            if self._isCanceled and isResting:
                raise InputError(_("Canceled. Nothing was written."))
            next(self._steps)
            return True
        except StopIteration:
            pass
        except InputError as error:
            self.message = str(error)
        except OSError as error:
            text = _("Files cannot be read or written: {reason}. Make room, or choose another folder, and try again.")
            self.message = text.format(reason=error.strerror or error)
        except Exception:  # the panel must not wait for an end that does not come
            logging.exception("An error of a DICOM command that was not expected")
            self.message = _("A mistake of this module. Slicer's log says where.")
        self._clean()
        return False

    def cancel(self) -> None:
        """End the commands; no partial files remain. `step` returns False once they are over."""
        self._isCanceled = True
        if self._process is not None:
            self._process.end()

    def close(self) -> None:
        """End the commands and remove their folder. A process gets a moment to end by itself."""
        self.cancel()
        wait([self._linking], child_process.PATIENCE)
        if self._process is not None:
            self._process.endAndWait()
        self._clean()

    def _run(self):
        """Run the commands, and yield meanwhile. Return the lines that the last one wrote to stderr."""
        while not self._linking.done():
            yield
        self._linking.result()
        yield from self._comparing
        notes: list[str] = []
        for words in self._commands:
            words = [str(self._image) if word == IMAGE else word for word in words]
            command = child_process.commandOf(self._python, "monai_sr_bundle", *words)
            process = self._process = ChildProcess(command, self._environment, self._folder, child_process.parseEvent)
            reason, isOver = "", False
            while not isOver:
                isOver = process.pursue()
                for event in process.lines():
                    if event["event"] == "progress":
                        self.fraction = float(event["fraction"])
                    elif event["event"] == "failed":
                        reason = str(event["message"])
                yield
            notes = [line.removeprefix("monai-sr: ") for line in list(process.lastLines) if line.strip()]
            if process.returnCode != 0:
                unknown = _("The command has ended without a reason ({code}).")
                unknown = unknown.format(code=process.error or process.returnCode)
                raise InputError(reason or (notes[-1].removeprefix("error: ") if notes else unknown))
        return notes

    def _prepare(self, files: Sequence[str], readings: str, parent) -> None:
        """Make the folders, in a thread: on a file system without links the whole series is copied."""
        if parent is not None:
            child_process.removeStaleFolders(str(parent))
        for each in (parent, None):
            self._folders.append(Path(child_process.makeFolder(each)))
        self._folder, self._image = self._folders
        (self._folder / "boxes.json").write_text(readings, encoding="utf-8")
        for number, file in enumerate(files):
            link = self._image / f"{number:06}{Path(file).suffix or '.dcm'}"
            if self._isCanceled:
                return
            try:
                os.symlink(os.path.abspath(file), link)
            except OSError:
                shutil.copyfile(file, link)

    def _clean(self) -> None:
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


class Export(Command):
    """Writes a result (or None), the boxes of its volume, or both into a new folder in `parent`: all files or none."""

    def __init__(self, resultNode, volumeNode, roiNodes: Sequence, parent=None, **process):
        if resultNode is None and not roiNodes:
            raise InputError(_("There is no result and no box to write. Press Run, or draw a box."))
        commands, readings = [], ""
        if resultNode is not None:
            commands.append(["enhance", IMAGE, "output", *optionsOf(resultNode), "--progress", "json"])
        if roiNodes:
            readings = _readingsOf(roiNodes, volumeNode)
            commands.append(["boxes", "to-dicom", IMAGE, "boxes.json", os.path.join("output", "boxes.dcm")])
        self._parent, self._name = parent, (resultNode or volumeNode).GetName()
        self._comparing = () if resultNode is None else requireSameVoxels(volumeNode)
        super().__init__(volumeNode, commands, readings, parent, **process)

    def _work(self):
        yield from self._run()
        name = re.sub(_RESERVED, "_", self._name)
        folder, number = Path(self._parent, name), 2
        while folder.exists():
            folder, number = Path(self._parent, f"{name} {number}"), number + 1
        (self._folder / "output").rename(folder)
        self.summary = _("{count} files in {folder}.").format(count=len(list(folder.rglob("*.dcm"))), folder=folder)


class SendToDatabase(Export):
    """Writes what `Export` does into Slicer's DICOM database, from where it goes to a PACS: all files or none."""

    def __init__(self, *nodes, **process):
        self._database, self._sent = openDatabase(), []  # Series Instance UID of each file that was sent
        super().__init__(*nodes, **process)

    def _work(self):
        yield from self._run()
        import pydicom  # Slicer has it; it takes a moment

        for file in sorted((self._folder / "output").rglob("*.dcm")):
            header = pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
            self._sent.append(header["SeriesInstanceUID"].value)
            self._database.insert(str(file))  # copies it, and shows it in the DICOM module
            yield
        series, total = set(self._sent), len(self._sent)
        count = sum(len(self._database.filesForSeries(each)) for each in series)
        if count != total:
            text = _("Slicer's DICOM database took {count} of {total} files, so none was kept there. Look at its "
                     "folder {folder}: is there room, and may you write?")  # fmt: skip
            raise InputError(text, count=count, total=total, folder=self._database.databaseDirectory)
        text = _("Sent to the study in Slicer's DICOM database: {files} files in {series} series.")
        self.summary = text.format(files=total, series=len(series))
        self._database.updateDisplayedFields()

    def _clean(self):
        super()._clean()
        if self._sent and not self.summary:
            for series in set(self._sent):
                self._database.removeSeries(series)
            self._database.updateDisplayedFields()


class LoadReport(Command):
    """Adds the boxes of a report, from any program, to the volume that it describes: all of them, or none."""

    def __init__(self, path, volumeNode, **process):
        self._path, self._volume, self._uids = Path(path), volumeNode, slicesOf(volumeNode)
        words = ["boxes", "from-dicom", str(self._path.absolute()), "report.json", "--image", IMAGE]
        super().__init__(volumeNode, [words], **process)

    def _work(self):
        notes = yield from self._run()
        if self._volume.GetScene() is None:
            raise InputError(_("The volume was removed while its report was read. Load it, and read the report again."))
        readings = parse_readings((self._folder / "report.json").read_text(encoding="utf-8"))
        rectangles = [rectangle for reading in readings for rectangle in reading.boxes]
        added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
        text = _("Boxes read: {count}, from {name}.").format(count=len(added), name=self._path.name)
        self.summary = "\n".join([text, *notes])


def optionsOf(resultNode) -> list[str]:
    """Return the options of `monai-sr enhance` that repeat a result."""
    source = result_nodes.existingSource(resultNode)
    k0, k1, r0, r1, c0, c1 = result_nodes.extentOf(resultNode)
    slices = volumes.shapeOf(source)[0]
    if (k0, k1) != (0, slices):
        message = _("'{name}' shows {count} of the {slices} slices of its source. A series is written of all of them: "
                    "enhance a box that goes through all slices, then export that.")  # fmt: skip
        raise InputError(message, name=resultNode.GetName(), count=k1 - k0, slices=slices)
    report = result_nodes.reportOf(resultNode)
    provenance = report["provenance"]
    # Else a large film or a CT would be enlarged twice alone, as by default at the command line.
    options = ["--roi", *map(str, (c0, r0, c1, r1)), "--scale", str(max(report["scaleZYX"]))]
    for name in ("bundle", "seed", "backend"):
        options += [f"--{name}", str(provenance[name])]
    sampling = provenance.get("sampling") or {}
    for name in ("texture", "steps"):
        if sampling.get(name):
            options += [f"--{name}", str(sampling[name])]
    if volumes.statedModality(source) == volumes.UNKNOWN:  # the files do not say that the model fits
        options.append("--force")
    return options


def _readingsOf(roiNodes: Sequence, volumeNode) -> str:
    """Return the boxes as JSON, one reading for each reader."""
    uids, (slices, rows, columns) = slicesOf(volumeNode), volumes.shapeOf(volumeNode)
    image = ImageIdentity(uids[0], columns=columns, rows=rows, slices=slices)
    readers: dict[str, list[Box]] = {}
    for node in roiNodes:
        for rectangle in box_nodes.toBoxes(node, volumeNode, uids):
            readers.setdefault(rectangle.reader, []).append(rectangle)
    readings = [Reading(image, Reader(reader), tuple(boxes), tool=TOOL) for reader, boxes in readers.items()]
    try:
        return format_readings(readings)
    except BoxError as error:
        raise InputError(_("The boxes cannot be written: {error} Correct the box."), error=error) from error
