"""`monai-sr` commands in processes of their own, on the DICOM files of a volume; the panel never waits for them.

`Export` writes a result as a derived series: the same model, seed, steps and region give the same pixels. docs/dicom.md
describes the headers, the identity and the label of synthetic texture. `SaveReport` and `LoadReport` write and read
anomaly boxes as Structured Reports (TID 1500). `SendToDatabase` copies what both write into Slicer's DICOM database.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from SuperResolutionLib import box_nodes, child_process, result_nodes, volumes
from SuperResolutionLib.box import Box, BoxError
from SuperResolutionLib.child_process import ChildProcess
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.headers import filesOf, slicesOf
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading, Tool, format_readings, parse_readings

SUFFIX, TOOL = ".dcm", Tool("3D Slicer")


class Command:
    """A running command on `files`; the caller's timer calls `step`. `message` is the reason of a failure, else empty.

    A subclass gives the command line in `words` and uses the output in `finish`. `failure` is a sentence that says what
    did not work ("The export cannot begin."), `python` an executable that has monai-sr-bundle, by default Slicer's own.
    The constructor raises an InputError if the command cannot start; nothing was written then.
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
                self._command = child_process.commandOf(python, "monai_sr_bundle", *self.words(image))
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


def optionsOf(resultNode) -> list[str]:
    """Return the options of `monai-sr enhance` that repeat a result."""
    source = result_nodes.existingSource(resultNode)
    k0, k1, r0, r1, c0, c1 = result_nodes.extentOf(resultNode)
    slices = volumes.shapeOf(source)[0]
    if (k0, k1) != (0, slices):
        message = _("'{name}' shows {count} of the {slices} slices of its source. A series is written of all of them: "
                    "enhance a box that goes through all slices, then export that.")  # fmt: skip
        raise InputError(message, name=resultNode.GetName(), count=k1 - k0, slices=slices)
    answer, fileModality = source.GetAttribute(volumes.MODALITY), volumes.statedModality(source)
    if answer and fileModality not in (answer, volumes.UNKNOWN):
        message = _("The files of '{name}' call it {stated}, and you have said that it is something else: a derived "
                    "series would say it wrongly too. Save the result with File, Save.")  # fmt: skip
        raise InputError(message, name=source.GetName(), stated=fileModality)
    provenance = result_nodes.reportOf(resultNode)["provenance"]
    options = ["--roi", *map(str, (c0, r0, c1, r1))]
    for name in ("bundle", "seed", "backend"):
        options += [f"--{name}", str(provenance[name])]
    sampling = provenance.get("sampling") or {}
    for name in ("texture", "steps"):
        if sampling.get(name):
            options += [f"--{name}", str(sampling[name])]
    return options + ["--force"] * (fileModality == volumes.UNKNOWN)  # then the files do not say that the model fits


class Export(Command):
    """Writes a result into a new folder inside `folder`. `fraction` is its progress, `summary` the text at its end."""

    def __init__(self, resultNode, folder, fileOf: Callable[[str], str], **process):
        self.fraction, self.summary = 0.0, ""
        sources = filesOf(result_nodes.existingSource(resultNode), fileOf)
        self._options = [freePath(Path(folder) / resultNode.GetName()), *optionsOf(resultNode)]
        super().__init__(_("The export cannot begin."), sources, **process)

    def words(self, image: str) -> list[str]:
        return ["enhance", image, *self._options, "--progress", "json"]

    def handleEvent(self, event: dict) -> None:
        kind = event.get("event")
        if kind == "progress":
            self.fraction = float(event["fraction"])
        elif kind == "finished":
            files = event["written"]
            self.summary = _("{count} files in {folder}.").format(count=len(files), folder=Path(files[0]).parent)
        elif kind == "failed":
            self.message = str(event["message"])


class SaveReport(Command):
    """Writes the boxes of a volume from DICOM as a report at `path`. `summary` is the text for the user at its end."""

    def __init__(self, roiNodes: Sequence, volumeNode, path, database, overwrite=False, **process):
        if not roiNodes:
            raise InputError(_("There are no boxes to save. Draw one first."))
        files = filesOf(volumeNode, database.fileForInstance)
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            message = _("'{name}' does not end in {ending}, as DICOM files do. Add it.")
            raise InputError(message, name=path.name, ending=SUFFIX)
        if os.path.realpath(path) in {os.path.realpath(file) for file in files}:
            message = _("'{name}' is a file of '{volume}', which is never replaced. Choose another name.")
            raise InputError(message, name=path.name, volume=volumeNode.GetName())
        self.summary, self._path, self._overwrite, self._count = "", path, overwrite, len(roiNodes)
        uids = slicesOf(volumeNode, files, database)
        slices, rows, columns = volumes.shapeOf(volumeNode)
        image = ImageIdentity(uids[0], columns=int(columns), rows=int(rows), slices=int(slices))
        readers: dict[str, list[Box]] = {}
        for node in roiNodes:
            for rectangle in box_nodes.toBoxes(node, volumeNode, uids):
                readers.setdefault(rectangle.reader, []).append(rectangle)
        readings = [Reading(image, Reader(reader), tuple(boxes), tool=TOOL) for reader, boxes in readers.items()]
        try:
            self._readings = format_readings(readings)
        except BoxError as error:
            raise InputError(_("The boxes cannot be written: {error} Correct the box."), error=error) from error
        super().__init__(_("The report cannot begin."), files, **process)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        with open(table, "w", encoding="utf-8") as file:
            file.write(self._readings)
        return ["boxes", "to-dicom", image, table, str(self._path.absolute()), *(["--overwrite"] * self._overwrite)]

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        text = _("Boxes written: {count}, in {path}.").format(count=self._count, path=self._path)
        self.summary = "\n".join([text, *notes])


class LoadReport(Command):
    """Adds the boxes of a report, from any program, to the volume that it describes: all of them, or none."""

    def __init__(self, path, volumeNode, database, **process):
        files = filesOf(volumeNode, database.fileForInstance)
        self.summary, self._path, self._volume = "", Path(path), volumeNode
        self._uids = slicesOf(volumeNode, files, database)
        super().__init__(_("The report cannot be read."), files, **process)

    def words(self, image: str) -> list[str]:
        table = os.path.join(os.path.dirname(image), "boxes.json")
        return ["boxes", "from-dicom", str(self._path.absolute()), table, "--image", image]

    def finish(self, folder: str, notes: Sequence[str]) -> None:
        if self._volume.GetScene() is None:
            raise InputError(_("The volume was removed while its report was read. Load it, and read the report again."))
        with open(os.path.join(folder, "boxes.json"), encoding="utf-8") as file:
            readings = parse_readings(file.read())
        rectangles = [rectangle for reading in readings for rectangle in reading.boxes]
        added = box_nodes.addBoxes(rectangles, self._volume, self._uids)
        text = _("Boxes read: {count}, from {name}.").format(count=len(added), name=self._path.name)
        self.summary = "\n".join([text, *notes])


class SendToDatabase:
    """Sends a result (or None), the boxes of its volume, or both to Slicer's DICOM database; a timer calls `step`.

    All files arrive, or none. `fraction` is the progress, `message` the reason of a failure, `summary` the text after
    success. The constructor raises an InputError if it cannot be sent; the database was not changed then.
    """

    def __init__(self, volumeNode, resultNode, roiNodes: Sequence, database, **process):
        if resultNode is None and not roiNodes:
            raise InputError(_("There is no result and no box to send. Press Run, or draw a box."))
        self.fraction, self.message, self.summary = 0.0, "", ""
        self._database, self._folder, self._isCanceled = database, child_process.makeFolder(), False
        self._commands, self._remaining, self._sent = [], None, []
        try:
            if resultNode is not None:
                self._commands.append(Export(resultNode, self._folder, database.fileForInstance, **process))
            if roiNodes:
                report = Path(self._folder) / "boxes.dcm"
                self._commands.append(SaveReport(roiNodes, volumeNode, report, database, **process))
        except InputError:
            self.close()
            raise

    def step(self) -> bool:
        """Continue to write, or copy one file into the database. Return True while something remains."""
        if self._commands:
            command = self._commands[0]
            if command.step():
                self.fraction = getattr(command, "fraction", self.fraction)
                return True
            self._commands.pop(0)
            if command.message:
                self.message = command.message
                self.close()
            return not command.message
        if self._remaining is None:
            self._remaining = sorted(Path(self._folder).rglob("*.dcm"))
        if self._remaining and not self._isCanceled:
            file = str(self._remaining.pop(0))
            self._sent.append(_seriesOf(file))
            self._database.insert(file)  # copies it, and shows it in the DICOM module
            return True
        series, total = set(self._sent), len(self._sent)
        count = sum(len(self._database.filesForSeries(each)) for each in series)
        if self._isCanceled:
            self.message = _("Canceled. Nothing was sent.")
        elif count != total:
            text = _("Slicer's DICOM database took {count} of {total} files, so none was kept there. Look at its "
                     "folder {folder}: is there room, and may you write?")  # fmt: skip
            self.message = text.format(count=count, total=total, folder=self._database.databaseDirectory)
        else:
            text = _("Sent to the study in Slicer's DICOM database: {files} files in {series} series.")
            self.summary = text.format(files=total, series=len(series))
            self._database.updateDisplayedFields()
        self.close()
        return False

    def cancel(self) -> None:
        """Cancel it; `step` returns False once nothing of it is left."""
        self._isCanceled = True
        for command in self._commands:
            command.cancel()

    def close(self) -> None:
        """End the processes, and remove the private folder and what the database has of an unfinished sending."""
        for command in self._commands:
            command.close()
        self._commands = []
        if self._sent and not self.summary:
            for series in set(self._sent):
                self._database.removeSeries(series)
            self._database.updateDisplayedFields()
        shutil.rmtree(self._folder, ignore_errors=True)


def _seriesOf(file: str) -> str:
    """Return the Series Instance UID of a file that is not in the database yet."""
    import pydicom  # Slicer has it; it takes a moment

    return str(pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True).SeriesInstanceUID)
