"""The source of the spacing that Slicer shows for a radiograph, where its readers, GDCM and DCMTK, differ."""

import types

import numpy as np
import pytest
import slicer
from SuperResolutionLib import enhancer, headers, volumes
from SuperResolutionLib.controller import Choice, Enhancement


@pytest.fixture
def radiograph(application):
    """Makes a volume as Slicer shows a radiograph of some header, and its database."""

    def make(spacing, header, modality="CR"):
        row, column = spacing
        volume = application.addVolume(np.zeros((1, 4, 4), np.int16), np.diag([-column, -row, 1.0, 1.0]))
        volume.SetAttribute(volumes.UIDS, "1.2.3")
        application.setModality(volume, modality)
        database = types.SimpleNamespace(
            isOpen=True, fileForInstance=lambda uid: "file.dcm", fileValue=lambda file, tag: header.get(tag, "")
        )
        return volume, database

    return make


FILE = "The file states {} mm, and Slicer shows "
SET_IT = "If you know it, set it in the Volumes module."


@pytest.mark.parametrize(("spacing", "header", "source", "note"), [
    ((0.143, 0.143), {headers.IMAGER: "0.143\\0.143"}, "detector plane", ""),
    ((0.143, 0.2), {headers.IMAGER: "0.143\\0.200"}, "detector plane", ""),
    ((0.139, 0.139), {headers.IMAGER: "0.143\\0.143", headers.PIXEL_SPACING: "0.139\\0.139"}, "calibrated", ""),
    ((0.143, 0.143), {headers.PIXEL_SPACING: "0.143\\0.143", headers.CALIBRATION: "FIDUCIAL"}, "calibrated", ""),
    ((0.143, 0.143), {headers.PIXEL_SPACING: "0.143\\0.143"}, "Pixel Spacing, detector plane or calibrated", ""),
    ((0.1, 0.1), {headers.SCANNED: "0.1\\0.1"}, "film plane", ""),
    ((0.143, 0.143), {}, "set in Slicer", ""),
    ((1.0, 1.0), {}, "", SET_IT),
    ((1.0, 1.0), {headers.IMAGER: "0\\0"}, "", SET_IT),
    ((1.0, 2.0), {headers.ASPECT: "1\\2"}, "", SET_IT),
    ((1.0, 1.0), {headers.PIXEL_SPACING: "0.143\\0.143"}, "", FILE.format("0.143 x 0.143")),  # GDCM
    ((0.143, 0.143), {headers.IMAGER: "0.143\\0.143", headers.PIXEL_SPACING: "0.139\\0.139"}, "",
     FILE.format("0.139 x 0.139")),
    ((0.2, 0.143), {headers.IMAGER: "0.143\\0.200"}, "", FILE.format("0.143 x 0.2")),  # DCMTK
])  # fmt: skip
def test_the_source_of_the_shown_spacing_is_told_and_where_it_is_unknown_what_to_do(
    radiograph, spacing, header, source, note, monkeypatch
):
    volume, database = radiograph(spacing, header)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    subject = enhancer.subjectOf(volume, [0, 1, 0, 4, 0, 4])
    assert (subject.spacingSource, subject.spacingZyx is not None) == (source, bool(source))
    assert subject.note.startswith(note)
    assert bool(note) == bool(subject.note) == (" in the Volumes module" in subject.note)


def test_the_bits_of_the_file_say_which_numbers_it_can_hold(radiograph):
    assert headers.headerOf(*radiograph((1, 1), {headers.BITS: "12", headers.SIGNED: "0"})).storedRange == (0, 4095)
    assert headers.headerOf(*radiograph((1, 1), {headers.BITS: "12", headers.SIGNED: "1"})).storedRange == (-2048, 2047)
    assert headers.headerOf(*radiograph((1, 1), {headers.BITS: "?"})).storedRange is None


@pytest.mark.parametrize(("orientation", "letters"), [
    ("L\\F", ("R", "L", "H", "F")), ("R\\F ", ("L", "R", "H", "F")), ("AL\\F", ("PR", "AL", "H", "F")),
    ("H\\L", ("F", "H", "R", "L")),
    ("", ()), ("L", ()), ("\\F", ()), ("L\\R", ()), ("L\\L", ()), ("L\\X", ()), ("L\\F\\H", ()),
])  # fmt: skip
def test_the_letters_of_a_film_are_those_of_its_file_and_none_else(radiograph, orientation, letters):
    volume, database = radiograph((0.1, 0.2), {headers.ORIENTATION: orientation})
    assert headers.edgeLettersOf(volume, database) == letters
    assert headers.edgeLettersOf(volume, None) == ()


def test_nothing_is_said_of_a_ct_or_of_a_volume_from_elsewhere(radiograph, application):
    volume, database = radiograph((0.7, 0.7), {headers.PIXEL_SPACING: "0.7\\0.7"}, modality="CT")
    assert headers.headerOf(volume, database) == headers.headerOf(volume, None) == headers.Header()
    assert headers.headerOf(application.addVolume(np.zeros((1, 4, 4), np.int16)), database) == headers.Header()


def test_a_monochrome1_volume_that_is_not_its_file_says_what_to_look_at(application, databases, radiograph, tmp_path):
    film = databases["CR"].load(application)
    slicer.util.arrayFromVolume(film)[0, 3, 4] = 7
    (tmp_path / "no film.dcm").write_text("no film")
    unreadable, other = radiograph((1, 1), {headers.PHOTOMETRIC: "MONOCHROME1"})
    other.fileForInstance = lambda uid: str(tmp_path / "no film.dcm")
    for volume, database in ((film, databases["CR"]), (unreadable, other)):
        header = headers.headerOf(volume, database)
        assert not header.blackIsHigh
        assert header.note.startswith(
            "The file is MONOCHROME1, where high is black, and whether Slicer has inverted it"
        )
        assert header.note.endswith("the result is right only if air looks dark.")


def test_the_kernel_of_a_ct_goes_to_the_model_which_knows_where_error_bars_are_too_narrow(radiograph, monkeypatch):
    kernel = {headers.KERNEL: "Br64d\\3"}
    ct, database = radiograph((0.7, 0.7), kernel, modality="CT")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    subject = enhancer.subjectOf(ct, [0, 1, 0, 4, 0, 4])
    assert Enhancement(subject, Choice()).fields()["kernel"] == "Br64d"
    assert headers.headerOf(*radiograph((0.143, 0.143), kernel)).kernel == ""  # of a film
