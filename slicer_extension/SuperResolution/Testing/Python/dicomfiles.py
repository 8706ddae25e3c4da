"""DICOM files drawn by the package's own tests, and volumes of them as Slicer's DICOM module leaves them."""

import json
import subprocess

import numpy as np
import slicer
import vtk

_SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from pydicom import dcmread
from tests.images import dicom_files
folder = Path(sys.argv[1])
{made}
told = {{}}
for file in sorted(folder.rglob("*.dcm")):
    header = dcmread(file, stop_before_pixels=True)
    values = {{f"{{e.tag.group:04X}},{{e.tag.element:04X}}".lower(): "\\\\".join(map(str, e.value))
               if e.VM > 1 else str(e.value) for e in header if e.VR != "SQ"}}
    told[str(header.SOPInstanceUID)] = [str(file), values]
print(json.dumps(told))
"""


class Database:
    """Slicer's DICOM database, of the files in one folder.

    Args:
        folder: existing folder for the files.
        made: Python that draws them into `folder`, with the functions of tests/images/dicom_files.py.
        workerPython: a Python with pydicom, and its environment.
    """

    def __init__(self, folder, code, workerPython):
        python, environment = workerPython
        self.folder = folder
        done = subprocess.run(
            [python, "-c", _SCRIPT.format(made=code), str(folder)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        self._files = json.loads(done.stdout)
        self.uids = list(self._files)

    def fileForInstance(self, uid):
        return self._files.get(uid, ("", {}))[0]

    def fileValue(self, file, tag):
        return next((values.get(tag.lower(), "") for name, values in self._files.values() if name == file), "")

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
