"""The module's entry in Slicer's Sample Data, with a stand-in that takes the same arguments."""

import sys
import types
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np

MODULE = Path(__file__).resolve().parents[2]


class SampleDataLogic:
    offered: list = []  # noqa: RUF012

    @classmethod
    def registerCustomSampleDataSource(
        cls, category=None, sampleName=None, uris=None, fileNames=None, nodeNames=None, customDownloader=None,
        thumbnailFileName=None, loadFileType=None, loadFiles=None, loadFileProperties=None, checksums=None,
    ):  # fmt: skip
        cls.offered.append((category, sampleName, uris, fileNames, nodeNames, thumbnailFileName, loadFileType))


def start(application):
    """Load the module, and tell it as Slicer does that all modules are there."""
    import slicer
    import slicerpython

    slicerpython.start(application)
    slicerpython.openModule()
    slicer.app.start()


def test_a_drawn_radiograph_is_offered_once_slicer_has_started(application, monkeypatch):
    import slicer

    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))
    monkeypatch.setattr(SampleDataLogic, "offered", [])
    start(application)
    [(category, sample, address, file, node, thumbnail, kind)] = SampleDataLogic.offered
    assert (category, sample, node, kind) == (
        "SuperResolution", "DrawnChestRadiograph", "DrawnChestRadiograph", "VolumeFile"
    )  # fmt: skip
    assert Path(thumbnail).is_file()
    path = urllib.request.url2pathname(urllib.parse.urlsplit(address).path)
    assert (Path(path).name, address[:8]) == (file, "file:///")
    storage, volume = slicer.vtkMRMLVolumeArchetypeStorageNode(), slicer.vtkMRMLScalarVolumeNode()
    storage.SetFileName(path)
    assert storage.ReadData(volume)
    assert slicer.util.arrayFromVolume(volume).shape[0] == 1
    assert np.ptp(slicer.util.arrayFromVolume(volume)) > 1000


def test_without_sample_data_the_module_starts_all_the_same(application, monkeypatch):
    monkeypatch.setitem(sys.modules, "SampleData", None)  # its import fails
    monkeypatch.setattr(SampleDataLogic, "offered", [])
    start(application)
    assert SampleDataLogic.offered == []
