"""The module's entry in Slicer's Sample Data, with a stand-in that takes the same arguments."""

import sys
import types
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import slicer
import slicerpython


def test_a_drawn_radiograph_is_offered_once_slicer_has_started(application, monkeypatch):
    offered = []

    def register(
        category=None, sampleName=None, uris=None, fileNames=None, nodeNames=None, customDownloader=None,
        thumbnailFileName=None, loadFileType=None, loadFiles=None, loadFileProperties=None, checksums=None,
    ):  # fmt: skip
        offered.append((category, sampleName, nodeNames, loadFileType, uris, fileNames, thumbnailFileName))

    logic = types.SimpleNamespace(registerCustomSampleDataSource=register)
    slicerpython.start(application)
    slicerpython.openModule()
    monkeypatch.setitem(sys.modules, "SampleData", None)  # its import fails, and the module starts all the same
    slicer.app.startupCompleted.emit()
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    slicer.app.startupCompleted.emit()
    [(*names, address, file, thumbnail)] = offered
    assert names == ["SuperResolution", "DrawnChestRadiograph", "DrawnChestRadiograph", "VolumeFile"]
    assert Path(thumbnail).is_file()
    path = urllib.request.url2pathname(urllib.parse.urlsplit(address).path)
    assert (Path(path).name, address[:8]) == (file, "file:///")
    storage, volume = slicer.vtkMRMLVolumeArchetypeStorageNode(), slicer.vtkMRMLScalarVolumeNode()
    storage.SetFileName(path)
    assert storage.ReadData(volume)
    assert slicer.util.arrayFromVolume(volume).shape[0] == 1
    assert np.ptp(slicer.util.arrayFromVolume(volume)) > 1000
