"""DICOM files drawn by the package's own tests, and volumes of them as Slicer's DICOM module leaves them."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import slicer
import vtk

_SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from pydicom import dcmread
folder = Path(sys.argv[1])
{code}
told = {{}}
for file in sorted(folder.rglob("*.dcm")):
    header = dcmread(file, stop_before_pixels=True)
    values = {{f"{{e.tag.group:04X}},{{e.tag.element:04X}}".lower(): "\\\\".join(map(str, e.value))
               if e.VM > 1 else str(e.value) for e in header if e.VR != "SQ"}}
    told[str(header.SOPInstanceUID)] = [str(file), values]
print(json.dumps(told))
"""


class Database:
    """Slicer's DICOM database (CTK's `ctkDICOMDatabase`, of which no wheel exists) of the files in one folder.

    Args:
        folder: existing folder for the files.
        code: Python that draws them into `folder`, with the functions of tests/images/dicom_files.py.
        workerPython: a Python with pydicom, and its environment.
    """

    isOpen = True

    def __init__(self, folder, code, workerPython):
        self.folder, self._workerPython = folder, workerPython
        self._files = self._read(folder, f"from tests.images import dicom_files\n{code}")
        self.uids = list(self._files)
        self.fieldUpdates = 0

    def _read(self, folder, code=""):
        python, environment = self._workerPython
        command = [python, "-c", _SCRIPT.format(code=code), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def databaseDirectory(self):
        return f"{self.folder}-database"

    def fileForInstance(self, uid):
        return self._files.get(uid, ("", {}))[0]

    def fileValue(self, file, tag):
        return next((values.get(tag.lower(), "") for name, values in self._files.values() if name == file), "")

    def insert(
        self, filePath, storeFile=True, generateThumbnail=True, createHierarchy=True, destinationDirectoryName=""
    ):
        """Copy a file, as CTK does unless `storeFile` is False."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) if storeFile else Path(filePath).parent
        shutil.copy(filePath, folder)
        self._files.update(self._read(folder))

    def seriesForStudy(self, studyUID):
        return list({values["0020,000e"] for _, values in self._files.values() if values["0020,000d"] == studyUID})

    def filesForSeries(self, seriesUID, hits=-1):
        return [file for file, values in self._files.values() if values["0020,000e"] == seriesUID]

    def removeSeries(self, seriesInstanceUID, clearCachedTags=False):
        for file in self.filesForSeries(seriesInstanceUID):
            Path(file).unlink()
        self._files = {uid: entry for uid, entry in self._files.items() if Path(entry[0]).exists()}
        return True

    def updateDisplayedFields(self):
        self.fieldUpdates += 1

    def load(self, application, name="chest", byDcmtk=False):
        """All files as one volume: by Slicer's reader (GDCM, or DCMTK for one file), in the order and with the words of
        its DICOM module."""
        files = [self.fileForInstance(uid) for uid in self.uids]
        if len(files) > 1:
            positions = [self._numbers(file, "0020,0032") for file in files]
            turn = self._numbers(files[0], "0020,0037")
            heights = np.array(positions) @ np.cross(turn[:3], turn[3:])
            self.uids = [self.uids[number] for number in heights.argsort()]
            files = [self.fileForInstance(uid) for uid in self.uids]
        listed = vtk.vtkStringArray()
        for file in files:
            listed.InsertNextValue(file)
        options = 8 if len(files) > 1 else 4 | 8  # window by the voxels; one file alone
        volume = application.moduleLogics["Volumes"].AddArchetypeVolume(files[0], name, options, listed)
        application.newSubjectHierarchyItems()
        if byDcmtk:
            reader = slicer.vtkITKArchetypeImageSeriesScalarReader()
            reader.SetArchetype(files[0])
            reader.SetDICOMImageIOApproachToDCMTK()
            reader.SetOutputScalarTypeToNative()
            reader.SetDesiredCoordinateOrientationToNative()
            reader.Update()
            image = vtk.vtkImageData()
            image.DeepCopy(reader.GetOutput())
            image.SetOrigin(0, 0, 0)
            image.SetSpacing(1, 1, 1)
            volume.SetAndObserveImageData(image)
        volume.SetAttribute("DICOM.instanceUIDs", " ".join(self.uids))
        application.setModality(volume, self.fileValue(files[0], "0008,0060"))
        return volume

    def _numbers(self, file, tag):
        return [float(part) for part in self.fileValue(file, tag).split("\\")]
