"""The module's entry in Slicer's Sample Data, with a stand-in that takes the same arguments."""

import sys
import types
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import slicer

ARGUMENTS = {
    "category", "sampleName", "uris", "fileNames", "nodeNames", "customDownloader", "thumbnailFileName", "loadFileType",
    "loadFiles", "loadFileProperties", "checksums",
}  # fmt: skip
"""Those of Slicer's `registerCustomSampleDataSource`."""


def test_a_drawn_radiograph_is_offered_once_slicer_has_started(application, module, monkeypatch):
    entries = []
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **entry: entries.append(entry))
    monkeypatch.setitem(sys.modules, "SampleData", None)  # its import fails, and the module starts all the same
    slicer.app.startupCompleted.emit()
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    slicer.app.startupCompleted.emit()
    [entry] = entries
    assert set(entry) <= ARGUMENTS
    assert Path(entry["thumbnailFileName"]).is_file()
    assert entry["uris"].startswith("file:///")
    file = urllib.request.url2pathname(urllib.parse.urlsplit(entry["uris"]).path)
    volume = application.loadVolume(file, "DX")
    assert slicer.util.arrayFromVolume(volume).shape[0] == 1
    assert np.ptp(slicer.util.arrayFromVolume(volume)) > 1000
