"""Results and boxes as DICOM in a folder and in Slicer's database, by the package's command line in real processes."""

from unittest.mock import Mock

import pydicom
import pytest
import slicer
from box_lists import assertSameBoxes, boxesOn, removeBoxes
from dicomfiles import PHANTOM_FILM
from opened_panel import Shared
from SuperResolutionLib import box_nodes, dicom_jobs, enhancer, headers, volumes
from SuperResolutionLib.dicom_jobs import Export, LoadReport, SendToDatabase
from SuperResolutionLib.errors import InputError
from waiting import waitFor


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for files; the private folders of commands come into a folder beside it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "export").mkdir()
    return tmp_path / "export"


@pytest.fixture
def database(openDatabase):
    return openDatabase(PHANTOM_FILM)


@pytest.fixture
def film(application, database):
    return database.load(application, name="4: chest")  # as Slicer's DICOM module names volumes


@pytest.fixture
def result(application, film, worker):
    """A result of the radiograph, by the default model."""
    return enhancer.Enhancer(Shared(worker)).enhance(film, application.addRoi(film, [0, 1, 40, 72, 50, 82]))


@pytest.fixture
def box(film):
    return addBox(film)


def addBox(volume, bounds=(0, 1, 3, 9, 2, 7), finding="Nodule", reader="A", certainty=0.8):
    return box_nodes.addBox(volume, bounds, finding, reader, certainty)


@pytest.fixture
def run(process):
    """Runs a command until it is over, or `afterSteps` says so: ``run(LoadReport, path, volume)``. Returns it."""

    def run(kind, *arguments, afterSteps=lambda command: False):
        command = kind(*arguments, **process)
        waitFor(lambda: not command.step() or afterSteps(command), what="the end of the command")
        return command

    return run


def stored(database):
    """Return modality and study of each file in the database."""
    return sorted((header.Modality, header.StudyInstanceUID) for header in database.headers.values())


def written(folder):
    """Return what lies in a folder and among the temporary files."""
    return {*folder.rglob("*"), *folder.with_name("temporary").rglob("*")}


def test_a_result_and_its_boxes_come_into_a_new_folder(film, result, box, run, folder):
    name = result.GetName().replace(":", "_")
    (folder / name).mkdir()
    export = run(Export, result, film, [box], folder)
    assert export.summary == f"2 files in {folder / name} 2.", export.message
    series, report = sorted((folder / f"{name} 2").iterdir())
    assert written(folder) == {folder / name, folder / f"{name} 2", series, report}
    assert {pydicom.dcmread(path).Modality for path in (series, report)} == {"DX", "SR"}


def test_a_box_through_slices_of_an_oblique_ct_is_one_lesion_and_one_box_again(loadDicom, run, folder):
    stack = loadDicom("CT")
    nodule = addBox(stack, [1, 4, 3, 9, 2, 7.5], certainty=None)
    mass = addBox(stack, [4, 5, 10, 20.25, 11, 19], "Mass", "B", 0.25)
    boxes = boxesOn(stack)
    export = run(Export, None, stack, [nodule, mass], folder)
    assert export.summary == f"1 files in {folder / 'chest'}.", export.message
    removeBoxes(stack)
    assert run(LoadReport, folder / "chest" / "boxes.dcm", stack).summary == "Boxes read: 2, from boxes.dcm."
    assertSameBoxes(boxesOn(stack), boxes)


def test_slices_are_found_by_their_place_and_not_by_the_order_of_the_files(loadDicom):
    stack, uids = loadDicom("CT"), slicer.dicomDatabase.uids
    for order in (uids, uids[::-1]):
        stack.SetAttribute(volumes.UIDS, " ".join(order))
        assert headers.slicesOf(stack) == uids
    refusal = pytest.raises(InputError, match="'chest' does not lie slice for slice where its DICOM files say")
    stack.SetAttribute(volumes.UIDS, uids[0])
    with refusal:
        headers.slicesOf(stack)
    stack.SetAttribute(volumes.UIDS, " ".join(uids))
    stack.SetOrigin(0, 0, 0)
    with refusal:
        headers.slicesOf(stack)


def test_what_a_report_says_besides_boxes_is_told_and_what_cannot_be_loaded_adds_nothing(
    application, loadDicom, run, folder
):
    film = loadDicom("CR")
    run(Export, None, film, [addBox(film, finding=name) for name in ("Nodule", "Mass")], folder)
    path = folder / "chest" / "boxes.dcm"
    report = pydicom.dcmread(path)
    items = report.ContentSequence[-1].ContentSequence[0].ContentSequence
    region = next(item for item in items if item.ValueType == "SCOORD")
    region.GraphicType, region.GraphicData = "POINT", [1.0, 2.0]
    report.save_as(path)
    removeBoxes(film)
    summary = "Boxes read: 1, from boxes.dcm.\nboxes.dcm, group 1: is a point (POINT), no box, and is left out."
    assert run(LoadReport, path, film).summary == summary
    removeBoxes(film)
    removed = run(LoadReport, path, film, afterSteps=lambda command: application.scene.RemoveNode(film))
    assert removed.message.startswith("The volume was removed while its report was read.")
    other = run(LoadReport, path, loadDicom("DX"))
    assert other.message.startswith("boxes.dcm: its 1 box(es) belong to other images than the 1 given.")
    assert box_nodes.boxesOf(application.scene) == []


def test_boxes_come_beside_the_study_they_belong_to_also_without_a_result(database, film, box, run, folder):
    [(_, study)] = stored(database)
    sending = run(SendToDatabase, None, film, [box])
    assert sending.summary == "Sent to the study in Slicer's DICOM database: 1 files in 1 series."
    assert stored(database) == [("DX", study), ("SR", study)]
    assert database.fieldUpdates == 1  # so that the DICOM module shows the new counts
    assert written(folder) == set()


def test_a_database_that_does_not_take_all_keeps_nothing(database, film, result, box, run, monkeypatch, folder):
    before, insert = stored(database), database.insert
    monkeypatch.setattr(database, "insert", lambda file: "boxes" in file or insert(file))
    sending = run(SendToDatabase, result, film, [box])
    assert sending.message.startswith("Slicer's DICOM database took 1 of 2 files, so none was kept there.")
    assert (stored(database), written(folder)) == (before, set())


@pytest.mark.parametrize("moment", ["while it is written", "while it is copied", "when Slicer ends"])
def test_what_is_cancelled_or_ended_leaves_nothing_and_takes_nothing_of_others(
    database, film, result, box, run, folder, moment
):
    file = pydicom.dcmread(database.fileForInstance(database.uids[0]))
    file.SeriesInstanceUID, file.SOPInstanceUID = "2.25.8", "2.25.7"
    file.save_as(folder.parent / "film" / "other.dcm")
    before = stored(database)

    def stop(sending):
        if sending._isCanceled or not (sending._sent or moment == "while it is written"):
            return False
        database.insert(str(folder.parent / "film" / "other.dcm"))  # another import, at the same time
        if moment == "when Slicer ends":
            sending.close()
            return True
        sending.cancel()

    sending = run(SendToDatabase, result, film, [box], afterSteps=stop)
    assert sending.message == ("" if moment == "when Slicer ends" else "Canceled. Nothing was written.")
    assert (stored(database), written(folder)) == (sorted(before * 2), set())
    assert database.filesForSeries("2.25.8")


def test_what_cannot_be_written_says_why_and_writes_nothing(film, result, box, run, folder, monkeypatch):
    long = addBox(film, finding="x" * 65)
    for message, *arguments in (
        ("There is no result and no box to write", None, film, [], folder),
        ("The boxes cannot be written: .*finding is .* at most 64 characters", None, film, [long], folder),
        ("The files cannot be written: No such file or directory.* another folder", None, film, [box], folder / "gone"),
    ):
        with pytest.raises(InputError, match=message):
            run(Export, *arguments)
    monkeypatch.setattr(dicom_jobs, "_link", Mock(side_effect=OSError(28, "No space left on device")))
    assert run(Export, result, film, [], folder).message.startswith(
        "The files cannot be written: No space left on device."
    )
    film.RemoveAttribute(volumes.UIDS)
    with pytest.raises(InputError, match="'4: chest' was not loaded from DICOM"):
        run(Export, result, film, [], folder)
    assert written(folder) == set()
