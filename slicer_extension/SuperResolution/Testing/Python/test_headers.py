"""The source of the spacing that Slicer shows for a radiograph, where its readers, GDCM and DCMTK, differ."""

import numpy as np
import pytest
import slicer
from dicomfiles import databaseOf
from SuperResolutionLib import enhancer, headers, volumes
from SuperResolutionLib.controller import Choice, Enhancement


@pytest.fixture
def radiograph(application, monkeypatch):
    """Makes a volume as Slicer shows a radiograph of some header, which is that of Slicer's one DICOM file."""

    def make(header, spacing=(0.7, 0.7), modality="CR"):
        row, column = spacing
        volume = application.addVolume(np.zeros((1, 4, 4), np.int16), np.diag([-column, -row, 1.0, 1.0]))
        volume.SetAttribute(volumes.UIDS, "1.2.3")
        application.setModality(volume, modality)
        monkeypatch.setattr(slicer, "dicomDatabase", databaseOf(header), raising=False)
        return volume

    return make


FILE = "The file states {} mm, and Slicer shows "
SET_IT = "If you know it, set it in the Volumes module."


@pytest.mark.parametrize(("spacing", "header", "source", "note"), [
    ((0.143, 0.2), {headers.IMAGER: "0.143\\0.200"}, "detector plane", ""),
    ((0.139, 0.139), {headers.IMAGER: "0.143\\0.143", headers.PIXEL_SPACING: "0.139\\0.139"}, "calibrated", ""),
    ((0.143, 0.143), {headers.PIXEL_SPACING: "0.143\\0.143", headers.CALIBRATION: "FIDUCIAL"}, "calibrated", ""),
    ((0.143, 0.143), {headers.PIXEL_SPACING: "0.143\\0.143"}, "Pixel Spacing, detector plane or calibrated", ""),
    ((0.1, 0.1), {headers.SCANNED: "0.1\\0.1"}, "film plane", ""),
    ((0.143, 0.143), {}, "set in Slicer", ""),
    ((1.0, 1.0), {}, "", SET_IT),
    ((1.0, 2.0), {headers.ASPECT: "1\\2"}, "", SET_IT),
    ((1.0, 1.0), {headers.PIXEL_SPACING: "0.143\\0.143"}, "", FILE.format("0.143 x 0.143")),  # GDCM
    ((0.143, 0.143), {headers.IMAGER: "0.143\\0.143", headers.PIXEL_SPACING: "0.139\\0.139"}, "",
     FILE.format("0.139 x 0.139")),
    ((0.2, 0.143), {headers.IMAGER: "0.143\\0.200"}, "", FILE.format("0.143 x 0.2")),  # DCMTK
])  # fmt: skip
def test_the_source_of_the_shown_spacing_is_told_and_where_it_is_unknown_what_to_do(
    radiograph, spacing, header, source, note
):
    subject = enhancer.subjectOf(radiograph(header, spacing), [0, 1, 0, 4, 0, 4])
    assert (subject.spacingSource, subject.spacingZyx is not None) == (source, bool(source))
    assert subject.note.startswith(note)
    assert bool(note) == bool(subject.note) == (" in the Volumes module" in subject.note)


@pytest.mark.parametrize(("orientation", "letters"), [
    ("L\\F", ("R", "L", "H", "F")), ("R\\F ", ("L", "R", "H", "F")), ("AL\\F", ("PR", "AL", "H", "F")),
    ("H\\L", ("F", "H", "R", "L")), ("", ()), ("L", ()), ("L\\R", ()), ("L\\X", ()), ("L\\F\\H", ()),
])  # fmt: skip
def test_the_letters_of_a_film_are_those_of_its_file_and_none_else(radiograph, orientation, letters):
    assert headers.edgeLettersOf(radiograph({headers.ORIENTATION: orientation})) == letters


def test_of_a_ct_the_kernel_alone_is_told_to_the_model_which_knows_where_error_bars_are_too_narrow(radiograph):
    header = {headers.KERNEL: "Br64d\\3", headers.PIXEL_SPACING: "0.1\\0.1"}
    ct = radiograph(header, modality="CT")
    assert headers.headerOf(ct) == headers.Header(kernel="Br64d")
    assert Enhancement(enhancer.subjectOf(ct, [0, 1, 0, 4, 0, 4]), Choice()).fields()["kernel"] == "Br64d"


@pytest.mark.parametrize("isOpen", [True, False])
def test_nothing_is_said_of_a_volume_from_elsewhere_or_while_no_database_is_open(radiograph, isOpen):
    film = radiograph({headers.PIXEL_SPACING: "0.1\\0.1", headers.ORIENTATION: "L\\F"})
    slicer.dicomDatabase.isOpen = isOpen
    film.SetAttribute(volumes.UIDS, "" if isOpen else "1.2.3")
    assert (headers.headerOf(film), headers.edgeLettersOf(film)) == (headers.Header(), ())


@pytest.mark.parametrize("isChanged", [True, False])
def test_a_monochrome1_volume_that_is_not_its_file_says_what_to_look_at(loadDicom, radiograph, isChanged):
    film = loadDicom("CR") if isChanged else radiograph({headers.PHOTOMETRIC: "MONOCHROME1"})  # of a file that is gone
    slicer.util.arrayFromVolume(film)[0, 3, 3] = 7
    header = headers.headerOf(film)
    assert not header.blackIsHigh
    assert header.note.startswith("The file is MONOCHROME1, where high is black, and whether Slicer has inverted it")
