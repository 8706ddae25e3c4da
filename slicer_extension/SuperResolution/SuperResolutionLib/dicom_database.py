"""A result and the boxes of its source in Slicer's own DICOM database, beside the study that they belong to.

Both are written into a private folder, as `dicom_export` and `dicom_report` do, and the database (CTK's
`ctkDICOMDatabase`) copies each file. All of them arrive, or none.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from SuperResolutionLib.child_process import makeFolder
from SuperResolutionLib.dicom_export import Export
from SuperResolutionLib.dicom_report import SaveReport
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.translation import _


class SendToDatabase:
    """Sends a result, the boxes of a volume, or both; the caller's timer calls `step`.

    Args:
        volumeNode: volume that was loaded from `database`.
        resultNode: result of it, or None.
        roiNodes: anomaly boxes of it.
        database: Slicer's DICOM database.
        process: `python` and `environment` of the commands; see `Command`.

    Attributes:
        fraction: progress, 0 to 1.
        message: reason of a failure; empty while it runs and after success.
        summary: text for the user, after success.

    Raises:
        InputError: it cannot be sent, and why; the database was not changed.
    """

    def __init__(self, volumeNode, resultNode, roiNodes: Sequence, database, **process):
        if resultNode is None and not roiNodes:
            raise InputError(_("There is no result and no box to send. Press Run, or draw a box."))
        self.fraction, self.message, self.summary = 0.0, "", ""
        self._database, self._folder, self._isCanceled = database, makeFolder(), False
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
            text = _(
                "Slicer's DICOM database took {count} of {total} files, so none was kept there. Look at its folder "
                "{folder}: is there room, and may you write?"
            )
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
