"""A result and boxes sent to Slicer's DICOM database, written by the package's command line in real processes."""

import pydicom
import pytest
import slicer
from dicomfiles import PHANTOM_FILM
from opened_panel import Shared
from SuperResolutionLib import box_nodes, dicom_jobs, enhancer, volumes
from SuperResolutionLib.errors import InputError
from waiting import waitFor


@pytest.fixture
def database(openDatabase, tmp_path, monkeypatch):
    """The database of a drawn radiograph; files that are sent come into a folder beside its file."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return openDatabase(PHANTOM_FILM)


@pytest.fixture
def film(application, database):
    return database.load(application)


@pytest.fixture
def result(application, film, worker):
    """A result of the radiograph, by the default model."""
    return enhancer.Enhancer(Shared(worker)).enhance(film, application.addRoi(film, [0, 1, 40, 72, 50, 82]))


@pytest.fixture
def box(film):
    return box_nodes.addBox(film, [0, 1, 45, 60, 55, 70], "Nodule", "A. Reader", 0.8)


@pytest.fixture
def send(database, process):
    """Sends to the database; returns the sending when it is over, or when `afterSteps` says so."""

    def send(*arguments, afterSteps=lambda sending: None):
        sending = dicom_jobs.SendToDatabase(*arguments, database, **process)

        def isOver():
            isRunning = sending.step()
            return afterSteps(sending) or not isRunning

        waitFor(isOver, what="the end of the sending")
        return sending

    return send


def stored(database):
    """Return modality and study of each file in the database."""
    return sorted((header.Modality, header.StudyInstanceUID) for header in database.headers.values())


def temporaryFiles(tmp_path):
    return list((tmp_path / "temporary").rglob("*.dcm"))


def test_boxes_come_beside_the_study_they_belong_to_also_without_a_result(database, film, box, send, tmp_path):
    [(_, study)] = stored(database)
    assert send(film, None, [box]).summary == "Sent to the study in Slicer's DICOM database: 1 files in 1 series."
    assert stored(database) == [("DX", study), ("SR", study)]
    assert database.fieldUpdates == 1  # so that the DICOM module shows the new counts
    assert temporaryFiles(tmp_path) == []


def test_a_database_that_does_not_take_all_keeps_nothing(database, film, result, box, send, monkeypatch, tmp_path):
    before, insert = stored(database), database.insert
    monkeypatch.setattr(database, "insert", lambda file: "boxes" in file or insert(file))
    sending = send(film, result, [box])
    assert sending.message.startswith("Slicer's DICOM database took 1 of 2 files, so none was kept there.")
    assert (stored(database), temporaryFiles(tmp_path)) == (before, [])


def test_a_series_that_another_import_puts_there_meanwhile_stays(database, film, result, send, tmp_path):
    other, file = tmp_path / "other.dcm", pydicom.dcmread(database.fileForInstance(database.uids[0]))
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = "2.25.7"
    file.SeriesInstanceUID = "2.25.8"
    file.save_as(other)
    before = stored(database)

    def importAndCancel(sending):
        if sending._sent and not sending._isCanceled:
            database.insert(str(other))
            sending.cancel()

    assert "Nothing was" in send(film, result, [], afterSteps=importAndCancel).message
    assert database.filesForSeries("2.25.8")
    assert stored(database) == sorted([*before, *before])


@pytest.mark.parametrize("moment", ["while it is written", "while it is copied", "when Slicer ends"])
def test_what_is_cancelled_or_ended_leaves_the_database_as_it_was(database, film, result, box, send, tmp_path, moment):
    before = stored(database)

    def stop(sending):
        if sending._sent and moment == "when Slicer ends":
            sending.close()
            return True
        if sending._sent or moment == "while it is written":
            sending.cancel()
        return False

    sending = send(film, result, [box], afterSteps=stop)
    assert moment == "when Slicer ends" or "Nothing was" in sending.message
    assert (stored(database), temporaryFiles(tmp_path)) == (before, [])


def test_what_cannot_be_sent_says_why_and_changes_nothing(database, film, result, box, send, tmp_path):
    before = stored(database)
    with pytest.raises(InputError, match="There is no result and no box to send"):
        send(film, None, [])
    box.SetCenter(5000, 0, 0)
    with pytest.raises(InputError, match="The box 'Nodule' lies outside 'chest'"):
        send(film, result, [box])
    volumes.setModality(film, "CT")
    with pytest.raises(InputError, match="The files of 'chest' call it CXR, and you have said"):
        send(film, result, [])
    film.RemoveAttribute(volumes.UIDS)
    with pytest.raises(InputError, match="'chest' was not loaded from DICOM"):
        send(film, result, [])
    assert (stored(database), temporaryFiles(tmp_path)) == (before, [])


def test_the_database_is_found_although_it_is_opened_after_the_panel(panel, application, database, monkeypatch):
    film = database.load(application)
    monkeypatch.delattr(slicer, "dicomDatabase")
    panel.chosen.inputVolume, panel.chosen.regionKind = film, "whole"
    panel.settle()
    assert "detector plane" not in panel.ui.subjectLabel.text
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    film.Modified()
    panel.settle()
    assert panel.ui.subjectLabel.text.endswith("(detector plane).")
