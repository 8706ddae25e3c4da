"""Results and boxes as DICOM in a folder and in Slicer's database, by the package's command line in real processes."""

from unittest.mock import Mock

import pydicom
import pytest
import slicer
from box_lists import assertSameBoxes, boxesOn, removeBoxes
from dicomfiles import PHANTOM_FILM
from opened_panel import Shared
from SuperResolutionLib import box_nodes, enhancer, headers, volumes
from SuperResolutionLib.dicom_jobs import Export, LoadReport, SendToDatabase
from SuperResolutionLib.errors import InputError
from waiting import waitFor


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for exports and for temporary files."""
    (tmp_path / "export").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "export"))
    return tmp_path / "export"


@pytest.fixture
def database(openDatabase):
    return openDatabase(PHANTOM_FILM)


@pytest.fixture
def film(application, database):
    return database.load(application)


@pytest.fixture
def result(application, film, worker):
    """A result of the radiograph, by the default model."""
    return enhancer.Enhancer(Shared(worker)).enhance(film, application.addRoi(film, [0, 1, 40, 72, 50, 82]))


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


def test_a_box_through_slices_of_an_oblique_ct_is_one_lesion_and_one_box_again_by_a_new_folder(loadDicom, run, folder):
    stack = loadDicom("CT")
    stack.SetName("4: chest")  # as Slicer's DICOM module names volumes
    nodule = addBox(stack, [1, 4, 3, 9, 2, 7.5], certainty=None)
    mass = addBox(stack, [4, 5, 10, 20.25, 11, 19], "Mass", "B", 0.25)
    boxes = boxesOn(stack)
    earlier, new = folder / "4_ chest", folder / "4_ chest 2"
    earlier.mkdir()
    export = run(Export, None, stack, [nodule, mass], folder)
    assert export.summary == f"1 files in {new}.", export.message
    assert {*folder.rglob("*")} == {earlier, new, new / "boxes.dcm"}
    removeBoxes(stack)
    assert run(LoadReport, new / "boxes.dcm", stack).summary == "Boxes read: 2, from boxes.dcm."
    assertSameBoxes(boxesOn(stack), boxes)


def test_slices_are_found_by_their_place_and_not_by_the_order_of_the_files(loadDicom):
    stack, uids = loadDicom("CT"), slicer.dicomDatabase.uids
    for order in (uids, uids[::-1]):
        stack.SetAttribute(volumes.UIDS, " ".join(order))
        assert headers.slicesOf(stack) == uids
        assert len([*headers.requireSameVoxels(stack)]) == len(uids)
    stack.SetOrigin(0, 0, 0)
    for order in (uids, uids[:1]):
        stack.SetAttribute(volumes.UIDS, " ".join(order))
        with pytest.raises(InputError, match="'chest' does not lie slice for slice where its DICOM files say"):
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
    assert box_nodes.boxesOf(application.scene) == []


def test_all_files_come_beside_the_study_they_belong_to_or_none(database, film, result, run, monkeypatch, folder):
    [(_, study)], box, insert = stored(database), addBox(film), database.insert
    with monkeypatch.context() as full:
        full.setattr(database, "insert", lambda file: "boxes" in file or insert(file))
        message = run(SendToDatabase, result, film, [box]).message
    assert message.startswith("Slicer's DICOM database took 1 of 2 files, so none was kept there.")
    assert stored(database) == [("DX", study)]
    sending = run(SendToDatabase, None, film, [box])
    assert sending.summary == "Sent to the study in Slicer's DICOM database: 1 files in 1 series."
    assert stored(database) == [("DX", study), ("SR", study)]
    assert database.fieldUpdates == 2  # so that the DICOM module shows the new counts
    assert not list(folder.iterdir())


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_what_is_cancelled_or_ended_leaves_nothing_and_takes_nothing_of_others(
    database, film, result, run, folder, end
):
    other = pydicom.dcmread(database.fileForInstance(database.uids[0]))
    other.SeriesInstanceUID, other.SOPInstanceUID = "2.25.8", "2.25.7"
    other.save_as(folder.parent / "film" / "other.dcm")
    before = stored(database)

    def stop(sending):
        if not sending._sent or sending._isCanceled:
            return False
        database.insert(str(folder.parent / "film" / "other.dcm"))  # another import, at the same time
        getattr(sending, end)()
        return end == "close"

    sending = run(SendToDatabase, result, film, [addBox(film)], afterSteps=stop)
    assert sending.message == ("" if end == "close" else "Canceled. Nothing was written.")
    assert (stored(database), list(folder.iterdir())) == (sorted(before * 2), [])
    assert database.filesForSeries("2.25.8")


def test_what_cannot_be_written_says_why_and_writes_nothing(film, result, run, folder, monkeypatch):
    box, long = addBox(film), addBox(film, finding="x" * 65)
    for message, *arguments in (
        ("There is no result and no box to write", None, film, []),
        ("The boxes cannot be written: .*finding is .* at most 64 characters", None, film, [long]),
    ):
        with pytest.raises(InputError, match=message):
            run(Export, *arguments, folder)
    reason = "Files cannot be read or written: No such file or directory. Make room, or choose another folder"
    assert run(Export, None, film, [box], folder / "gone").message.startswith(reason)
    slicer.util.arrayFromVolume(film)[0, 100:110, 100:110] = 0  # as a mask over a name; copies keep the UIDs
    assert run(Export, result, film, [], folder).message.startswith("'chest' has other voxels than are read from its")
    for name in ("os.symlink", "shutil.copyfile"):
        monkeypatch.setattr(name, Mock(side_effect=OSError(28, "No space left on device")))
    full = run(Export, result, film, [], folder)
    assert full.message.startswith("Files cannot be read or written: No space left on device.")
    film.GetImageData().SetDimensions(64, 256, 1)  # another size with the same UIDs, as Crop Volume leaves it
    for message in ("'chest' is not all that its DICOM files hold", "'chest' was not loaded from DICOM"):
        with pytest.raises(InputError, match=message):
            run(Export, result, film, [], folder)
        film.RemoveAttribute(volumes.UIDS)
    assert not list(folder.iterdir())
