"""DICOM files drawn by the package's own tests, and volumes of them as Slicer's DICOM module leaves them."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import slicer
import vtk

PHANTOM_FILM = "from monai_sr_bundle.datasets import phantom; phantom.write_phantom_dicom(folder / 'film.dcm', 128)"
FILM_OF_2000 = PHANTOM_FILM.replace("128)", "2000, 0, 0.2)")
"""Code that draws a radiograph of 128 x 128 pixels, and one of 2000 x 2000 of 0.2 mm; see `Database`."""
_DRAWING = """
import sys
from pathlib import Path
import numpy as np
from pydicom import dcmread
from tests.images import dicom_files
folder = Path(sys.argv[1])
"""


class Database:
    """Slicer's DICOM database (CTK's `ctkDICOMDatabase`, of which no wheel exists) of the files in one folder.

    The worker's Python draws them by the code, with the functions of tests/images/dicom_files.py.
    """

    isOpen = True

    def __init__(self, folder, code, workerPython):
        python, environment = workerPython
        subprocess.run([python, "-c", _DRAWING + code, str(folder)], env=environment, check=True)
        self.folder, self.fieldUpdates, self.headers = folder, 0, {}
        self.databaseDirectory = f"{folder}-database"
        for file in sorted(Path(folder).rglob("*.dcm")):
            self.insert(file, storeFile=False)
        self.uids = [str(header.SOPInstanceUID) for header in self.headers.values()]

    def fileForInstance(self, uid):
        return next((file for file, header in self.headers.items() if header.SOPInstanceUID == uid), "")

    def fileValue(self, file, tag):
        element = self.headers.get(file, {}).get(tuple(int(part, 16) for part in tag.split(",")))
        values = [] if element is None or element.VM == 0 else element.value if element.VM > 1 else [element.value]
        return "\\".join(map(str, values))

    def insert(self, filePath, storeFile=True):
        """Copy a file, as CTK does unless `storeFile` is False."""
        file = shutil.copy(filePath, tempfile.mkdtemp(dir=self.folder)) if storeFile else filePath
        self.headers[str(file)] = pydicom.dcmread(file, stop_before_pixels=True)

    def filesForSeries(self, seriesUID):
        return [file for file, header in self.headers.items() if header.SeriesInstanceUID == seriesUID]

    def removeSeries(self, seriesInstanceUID):
        for file in self.filesForSeries(seriesInstanceUID):
            Path(file).unlink()
            del self.headers[file]

    def updateDisplayedFields(self):
        self.fieldUpdates += 1

    def load(self, application, *, byDcmtk=False):
        """All files as one volume: by Slicer's reader (GDCM, or DCMTK for one file), in the order and with the words of
        its DICOM module."""
        listed = vtk.vtkStringArray() if len(self.uids) > 1 else None
        if listed:
            self.uids = [str(header.SOPInstanceUID) for header in sorted(self.headers.values(), key=_height)]
            for uid in self.uids:
                listed.InsertNextValue(self.fileForInstance(uid))
        file = self.fileForInstance(self.uids[0])
        volume = application.loadVolume(file, self.headers[file].Modality, "chest", listed)
        if byDcmtk:
            reader = slicer.vtkITKArchetypeImageSeriesScalarReader()
            reader.SetArchetype(file)
            reader.SetDICOMImageIOApproachToDCMTK()
            reader.SetOutputScalarTypeToNative()
            reader.SetDesiredCoordinateOrientationToNative()
            reader.Update()
            volume.GetImageData().GetPointData().SetScalars(reader.GetOutput().GetPointData().GetScalars())
        volume.SetAttribute("DICOM.instanceUIDs", " ".join(self.uids))
        return volume


def databaseOf(header):
    """Return a database of one file, of which the values of a header are known and nothing else."""
    return SimpleNamespace(
        isOpen=True, fileForInstance=lambda uid: "no file.dcm", fileValue=lambda file, tag: header.get(tag, "")
    )


def _height(header):
    return np.dot(header.ImagePositionPatient, np.cross(*np.reshape(header.ImageOrientationPatient, (2, 3))))
