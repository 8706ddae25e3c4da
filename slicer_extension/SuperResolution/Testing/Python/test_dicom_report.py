"""Anomaly boxes as DICOM Structured Reports, written and read by the package's command line in a real process."""

import os

import numpy as np
import pydicom
import pytest
import slicer
from box_lists import assertSameBoxes, boxesOn, removeBoxes
from SuperResolutionLib import box_nodes, dicom_jobs, headers, volumes
from SuperResolutionLib.errors import InputError
from waiting import waitFor


@pytest.fixture
def film(loadDicom):
    return loadDicom("CR")


@pytest.fixture
def stack(loadDicom):
    return loadDicom("CT")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sr.dcm"


@pytest.fixture
def save(process, path):
    """Writes a report of boxes: ``save(volume, nodes)``. Returns the process, when it has ended."""

    def save(volume, nodes, path=path, **options):
        return ended(dicom_jobs.SaveReport(nodes, volume, path, slicer.dicomDatabase, **process, **options))

    return save


@pytest.fixture
def load(process, path):
    """Reads a report: ``load(volume)``. Returns the process, when it has ended."""

    def load(volume, path=path, meanwhile=lambda: None):
        report = dicom_jobs.LoadReport(path, volume, slicer.dicomDatabase, **process)
        meanwhile()
        return ended(report)

    return load


def ended(running):
    waitFor(lambda: not running.step(), what="the end of the command")
    return running


def addBox(volume, bounds=(0, 1, 3, 9, 2, 7), finding="Nodule", reader="A", certainty=0.8):
    return box_nodes.addBox(volume, bounds, finding, reader, certainty)


def test_a_box_through_slices_of_an_oblique_ct_is_one_lesion_and_one_box_again(stack, save, load, path, runPython):
    nodule = addBox(stack, [1, 4, 3, 9, 2, 7.5], certainty=None)
    mass = addBox(stack, [4, 5, 10, 20.25, 11, 19], "Mass", "B", 0.25)
    boxes = boxesOn(stack)
    written = save(stack, [nodule, mass])
    assert written.summary.startswith("Boxes written: 2, in "), written.message
    command = ("boxes", "from-dicom", path, "boxes.csv", "--image", slicer.dicomDatabase.folder)
    runPython("-m", "monai_sr_bundle", *command, cwd=path.parent)
    rows = path.with_name("boxes.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[6] for row in rows) == ["1", "2", "3", "4"]
    removeBoxes(stack)
    load(stack)
    assertSameBoxes(boxesOn(stack), boxes)


def test_slices_are_found_by_their_place_and_not_by_the_order_of_the_files(stack):
    database = slicer.dicomDatabase
    files = [database.fileForInstance(uid) for uid in database.uids]
    expected = headers.slicesOf(stack, files, database)
    assert expected == database.uids
    stack.SetAttribute(volumes.UIDS, " ".join(reversed(database.uids)))
    assert headers.slicesOf(stack, files[::-1], database) == expected


def test_what_was_not_understood_is_told(film, save, load, path):
    save(film, [addBox(film, finding=name) for name in ("Nodule", "Mass")])
    report = pydicom.dcmread(path)
    group = report.ContentSequence[-1].ContentSequence[0]
    region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    region.GraphicType, region.GraphicData = "POINT", [1.0, 2.0]
    report.save_as(path)
    removeBoxes(film)
    assert (
        load(film).summary
        == "Boxes read: 1, from sr.dcm.\nsr.dcm, group 1: is a point (POINT), no box, and is left out."
    )


def test_what_cannot_be_saved_says_why_and_writes_nothing(application, film, save, path, tmp_path):
    box, long, older = addBox(film), addBox(film, finding="x" * 65), tmp_path / "there.dcm"
    older.write_bytes(b"an older report")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, nodes, target, options in (
        ("The boxes cannot be written: .*finding is .* at most 64 characters.* Correct the box.", [long], path, {}),
        ("'sr.json' does not end in .dcm", [box], tmp_path / "sr.json", {}),
        (
            "'film.dcm' is a file of 'chest', which is never replaced.",
            [box], slicer.dicomDatabase.folder / "film.dcm", {"overwrite": True},
        ),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            save(film, nodes, target, **options)
    assert "there.dcm exists already" in save(film, [box], older).message
    message = save(film, [box], older / "sr.dcm").message
    assert message.endswith("there.dcm is not a folder. Choose another folder for the result.")
    phantom = application.addVolume(np.zeros((1, 24, 20), np.int16), name="drawn")
    with pytest.raises(InputError, match="'drawn' was not loaded from DICOM, .* Load it"):
        save(phantom, [box])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_cannot_be_loaded_says_why_and_adds_nothing(application, film, loadDicom, save, load, path):
    save(film, [addBox(film)])
    removeBoxes(film)
    other = loadDicom("DX")
    before, broken = application.nodeIds(), path.with_name("broken.dcm")
    assert load(other).message.startswith("sr.dcm: its 1 box(es) belong to other images than the 1 given.")
    assert load(other, slicer.dicomDatabase.folder / "film.dcm").message.endswith("Pass the report, not the image.")
    broken.write_bytes(path.read_bytes()[:700])
    assert load(other, broken).message.startswith("broken.dcm: ")
    assert load(other, path.with_name("gone.dcm")).message.endswith("gone.dcm: is not a file. Check the spelling.")
    assert application.nodeIds() == before
    film = loadDicom("CR")
    removed = load(film, meanwhile=lambda: application.scene.RemoveNode(film))
    assert removed.message.startswith("The volume was removed while its report was read.")
    assert box_nodes.boxesOf(application.scene) == []


def test_a_volume_that_left_its_place_has_no_report(stack, save):
    box = addBox(stack, [1, 4, 3, 9, 2, 7])
    stack.SetOrigin(0, 0, 0)
    with pytest.raises(InputError, match="'chest' does not lie where its DICOM files say.* Load it again"):
        save(stack, [box])
    stack.SetAttribute(volumes.UIDS, slicer.dicomDatabase.uids[0])
    with pytest.raises(InputError, match="'chest' has 5 slices in 1 DICOM files, expected one file for each"):
        save(stack, [box])


def test_files_that_cannot_be_brought_together_are_told_and_nothing_is_left(film, save, tmp_path, monkeypatch):
    def full(file, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("SuperResolutionLib.dicom_jobs._link", full)
    saving = save(film, [addBox(film)])
    assert saving.message == "The report cannot begin. No space left on device. Make room, and try again."
    assert os.listdir(tmp_path) == []
