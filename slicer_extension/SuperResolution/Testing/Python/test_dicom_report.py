"""Anomaly boxes as DICOM Structured Reports, written and read by the package's command line in a real process."""

import os

import numpy as np
import pydicom
import pytest
from dicomfiles import Database
from SuperResolutionLib import box_nodes, dicom_report, headers, volumes
from SuperResolutionLib.errors import InputError
from waiting import waitFor


@pytest.fixture(scope="module")
def databases(workerPython, tmp_path_factory):
    """Two radiographs of 24 rows and 20 columns, of different studies, and an oblique CT of 5 slices."""
    film = "dicom_files.radiograph(folder / 'film.dcm', dicom_files.phantom(dtype='uint16')[0]{})"
    changed = ", SOPInstanceUID='2.25.77', StudyInstanceUID='2.25.78', SeriesInstanceUID='2.25.79'"
    stack = "dicom_files.ct_series(folder, dicom_files.phantom(slices=5))"
    codes = {"film": film.format(""), "other": film.format(changed), "stack": stack}
    return {name: Database(tmp_path_factory.mktemp(name), code, workerPython) for name, code in codes.items()}


class Case:
    """A volume that was loaded from DICOM, and its reports.

    Attributes:
        volume, database: volume node, and the database of its files.
        path: report that `save` writes and `load` reads where they are not given another one.
    """

    def __init__(self, application, database, workerPython, path):
        self._application, self.database, self.path = application, database, path
        self._process = dict(zip(("python", "environment"), workerPython))
        self.volume = database.load(application)

    def addBox(self, bounds=(0, 1, 3, 9, 2, 7), finding="Nodule", reader="A", certainty=0.8):
        return box_nodes.addBox(self.volume, bounds, finding, reader, certainty)

    def save(self, nodes, path=None, **options):
        report = dicom_report.SaveReport(
            nodes, self.volume, path or self.path, self.database, **self._process, **options
        )
        return ended(report)

    def load(self, path=None, meanwhile=lambda: None):
        report = dicom_report.LoadReport(path or self.path, self.volume, self.database, **self._process)
        meanwhile()
        return ended(report)

    @property
    def boxes(self):
        return box_nodes.boxesOf(self._application.scene)

    @property
    def bounds(self):
        return [box_nodes.boundsIn(node, self.volume) for node in self.boxes]

    @property
    def words(self):
        return [(*box_nodes.wordsOf(node), box_nodes.trackingOf(node)) for node in self.boxes]

    def removeBoxes(self):
        for node in self.boxes:
            box_nodes.removeBox(node)


def ended(running):
    waitFor(lambda: not running.step(), what="the end of the command")
    return running


@pytest.fixture
def case(application, databases, workerPython, tmp_path):
    """Loads one of the images: ``case("film")``."""
    return lambda name: Case(application, databases[name], workerPython, tmp_path / "sr.dcm")


@pytest.fixture
def film(case):
    return case("film")


@pytest.fixture
def stack(case):
    return case("stack")


def test_a_box_through_slices_of_an_oblique_ct_is_one_lesion_and_one_box_again(application, stack, runPython, tmp_path):
    nodule = stack.addBox([1, 4, 3, 9, 2, 7.5], certainty=None)
    mass = stack.addBox([4, 5, 10, 20.25, 11, 19], "Mass", "B", 0.25)
    bounds, words = stack.bounds, stack.words
    written = stack.save([nodule, mass])
    assert written.summary.startswith("Boxes written: 2, in "), written.message
    command = ("boxes", "from-dicom", stack.path, "boxes.csv", "--image", stack.database.folder)
    runPython("-m", "monai_sr_bundle", *command, cwd=tmp_path)
    rows = (tmp_path / "boxes.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[6] for row in rows) == ["1", "2", "3", "4"]
    stack.removeBoxes()
    stack.load()
    assert stack.words == words
    np.testing.assert_allclose(stack.bounds, bounds, atol=2e-3)
    assert application.subjectHierarchy.GetItemByDataNode(stack.boxes[0])


def test_slices_are_found_by_their_place_and_not_by_the_order_of_the_files(stack):
    volume, database = stack.volume, stack.database
    files = [database.fileForInstance(uid) for uid in database.uids]
    expected = headers.slicesOf(volume, files, database)
    assert expected == database.uids
    volume.SetAttribute(volumes.UIDS, " ".join(reversed(database.uids)))
    assert headers.slicesOf(volume, files[::-1], database) == expected


def test_what_was_not_understood_is_told(film):
    film.save([film.addBox(finding=name) for name in ("Nodule", "Mass")])
    report = pydicom.dcmread(film.path)
    group = report.ContentSequence[-1].ContentSequence[0]
    region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    region.GraphicType, region.GraphicData = "POINT", [1.0, 2.0]
    report.save_as(film.path)
    film.removeBoxes()
    summary = film.load().summary
    assert summary == "Boxes read: 1, from sr.dcm.\nsr.dcm, group 1: is a point (POINT), no box, and is left out."


def test_what_cannot_be_saved_says_why_and_writes_nothing(application, film, tmp_path):
    box, long, older = film.addBox(), film.addBox(finding="x" * 65), tmp_path / "there.dcm"
    older.write_bytes(b"an older report")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, nodes, path, options in (
        ("There are no boxes to save. Draw one first.", [], None, {}),
        ("The boxes cannot be written: .*finding is .* at most 64 characters.* Correct the box.", [long], None, {}),
        ("'sr.json' does not end in .dcm", [box], tmp_path / "sr.json", {}),
        (
            "'film.dcm' is a file of 'chest', which is never replaced.",
            [box], film.database.folder / "film.dcm", {"overwrite": True},
        ),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            film.save(nodes, path, **options)
    assert "there.dcm exists already" in film.save([box], older).message
    message = film.save([box], older / "sr.dcm").message
    assert message.endswith("there.dcm is not a folder. Choose another folder for the result.")
    film.volume = application.addVolume(np.zeros((1, 24, 20), np.int16), name="drawn")
    with pytest.raises(InputError, match="'drawn' was not loaded from DICOM, .* Load it"):
        film.save([box])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_cannot_be_loaded_says_why_and_adds_nothing(application, film, case, tmp_path):
    film.save([film.addBox()])
    other = case("other")
    film.removeBoxes()
    before = application.nodeIds()
    assert other.load().message.startswith("sr.dcm: its 1 box(es) belong to other images than the 1 given.")
    image = film.database.folder / "film.dcm"
    assert film.load(image).message.endswith("Pass the report, not the image.")
    (tmp_path / "broken.dcm").write_bytes(film.path.read_bytes()[:700])
    assert film.load(tmp_path / "broken.dcm").message.startswith("broken.dcm: ")
    assert film.load(tmp_path / "gone.dcm").message.endswith("gone.dcm: is not a file. Check the spelling.")
    assert application.nodeIds() == before
    removed = film.load(meanwhile=lambda: application.scene.RemoveNode(film.volume))
    assert removed.message.startswith("The volume was removed while its report was read.")
    assert film.boxes == []


def test_a_volume_that_left_its_place_has_no_report(stack):
    box = stack.addBox([1, 4, 3, 9, 2, 7])
    stack.volume.SetOrigin(0, 0, 0)
    with pytest.raises(InputError, match="'chest' does not lie where its DICOM files say.* Load it again"):
        stack.save([box])
    stack.volume.SetAttribute(volumes.UIDS, stack.database.uids[0])
    with pytest.raises(InputError, match="'chest' has 5 slices in 1 DICOM files, expected one file for each"):
        stack.save([box])


def test_files_that_cannot_be_brought_together_are_told_and_nothing_is_left(film, tmp_path, monkeypatch):
    def full(file, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("SuperResolutionLib.command._link", full)
    saving = film.save([film.addBox()])
    assert saving.message == "The report cannot begin. No space left on device. Make room, and try again."
    assert os.listdir(tmp_path) == []
