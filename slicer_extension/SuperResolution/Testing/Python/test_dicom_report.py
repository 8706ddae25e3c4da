"""Anomaly boxes as DICOM Structured Reports, written and read by the package's command line in a real process."""

import os

import numpy as np
import pytest
from dicomfiles import Database
from SuperResolutionLib import box_nodes, dicom_report, headers, volumes
from SuperResolutionLib.errors import InputError
from waiting import waitFor


@pytest.fixture(scope="module")
def films(workerPython, tmp_path_factory):
    """Two radiographs of 24 rows and 20 columns, of different studies, each a database of its own."""
    code = "dicom_files.radiograph(folder / '{0}.dcm', dicom_files.phantom(dtype='uint16')[0], {1})"
    changed = "SOPInstanceUID='2.25.77', StudyInstanceUID='2.25.78', SeriesInstanceUID='2.25.79'"
    return [
        Database(tmp_path_factory.mktemp(name), code.format(name, words), workerPython)
        for name, words in (("film", "'DX'"), ("other", changed))
    ]


@pytest.fixture(scope="module")
def slices(workerPython, tmp_path_factory):
    """The database of an oblique CT of 5 slices."""
    code = "dicom_files.ct_series(folder, dicom_files.phantom(slices=5))"
    return Database(tmp_path_factory.mktemp("ct"), code, workerPython)


class Case:
    """A volume that was loaded from DICOM, and its reports.

    Attributes:
        volume, database: volume node, and the database of its files.
        path: report that `save` writes and `load` reads where they are not given another one.
    """

    def __init__(self, application, database, workerPython, path):
        self._application, self.database, self.path = application, database, path
        python, environment = workerPython
        self._options = {"python": python, "environment": environment}
        self.volume = database.load(application)

    def addBox(self, bounds=(0, 1, 3, 9, 2, 7), finding="Nodule", reader="A", certainty=0.8):
        return box_nodes.addBox(self.volume, bounds, finding, reader, certainty)

    def beginSaving(self, nodes, path=None, **options):
        options = {**self._options, **options}
        return dicom_report.SaveReport(nodes, self.volume, path or self.path, self.database, **options)

    def beginLoading(self, path=None):
        return dicom_report.LoadReport(path or self.path, self.volume, self.database, **self._options)

    def save(self, *arguments, **options):
        return ended(self.beginSaving(*arguments, **options))

    def load(self, path=None):
        return ended(self.beginLoading(path))

    @property
    def boxes(self):
        return box_nodes.boxesOf(self._application.scene)

    @property
    def bounds(self):
        return [box_nodes.boundsIn(node, self.volume) for node in self.boxes]

    @property
    def words(self):
        return [box_nodes.wordsOf(node) for node in self.boxes]

    @property
    def tracking(self):
        return [node.GetAttribute(box_nodes.TRACKING) for node in self.boxes]

    def removeBoxes(self):
        for node in self.boxes:
            box_nodes.removeBox(node)


def ended(running):
    waitFor(lambda: not running.step(), what="the end of the command")
    return running


@pytest.fixture
def film(application, films, workerPython, tmp_path):
    return Case(application, films[0], workerPython, tmp_path / "sr.dcm")


@pytest.fixture
def stack(application, slices, workerPython, tmp_path):
    return Case(application, slices, workerPython, tmp_path / "sr.dcm")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_box_on_a_radiograph_comes_back_where_it_was_and_in_a_second_report_as_the_same_lesion(film, tmp_path):
    box = film.addBox([0, 1, 3.25, 9.5, 2, 7.75], reader="A. Reader")
    written = film.save([box])
    assert (written.message, written.summary) == ("", f"Boxes written: 1, in {film.path}.")
    bounds, words, tracking = film.bounds, film.words, film.tracking
    box_nodes.describe(box, "Mass", "A. Reader", 0.9)
    film.save([box], tmp_path / "two.dcm")
    film.removeBoxes()
    read = film.load()
    assert (read.message, read.summary) == ("", "Boxes read: 1, from sr.dcm.")
    assert (film.words, film.tracking) == (words, tracking)
    np.testing.assert_allclose(film.bounds, bounds, atol=2e-3)
    film.load(tmp_path / "two.dcm")
    assert film.tracking == 2 * tracking
    assert [finding for finding, *_ in film.words] == ["Nodule", "Mass"]


def test_a_box_through_slices_of_an_oblique_ct_is_one_lesion_and_one_box_again(application, stack, runPython, tmp_path):
    nodule = stack.addBox([1, 4, 3, 9, 2, 7.5], certainty=None)
    mass = stack.addBox([4, 5, 10, 20.25, 11, 19], "Mass", "B", 0.25)
    bounds, words = stack.bounds, stack.words
    written = stack.save([nodule, mass])
    assert written.summary.startswith("Boxes written: 2, in "), written.message
    tracking = stack.tracking
    assert all(uid.startswith("2.25.") for uid in tracking)
    command = ("boxes", "from-dicom", stack.path, "boxes.csv", "--image", stack.database.folder)
    runPython("-m", "monai_sr_bundle", *command, cwd=tmp_path)
    rows = (tmp_path / "boxes.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[6] for row in rows) == ["1", "2", "3", "4"]
    stack.removeBoxes()
    stack.load()
    assert (stack.tracking, stack.words) == (tracking, words)
    np.testing.assert_allclose(stack.bounds, bounds, atol=2e-3)
    assert application.subjectHierarchy.GetItemByDataNode(stack.boxes[0])


def test_slices_are_found_by_their_place_and_not_by_the_order_of_the_files(stack):
    volume, database = stack.volume, stack.database
    files = [database.fileForInstance(uid) for uid in database.uids]
    expected = headers.slicesOf(volume, files, database)
    assert expected == database.uids
    volume.SetAttribute(volumes.UIDS, " ".join(reversed(database.uids)))
    assert headers.slicesOf(volume, files[::-1], database) == expected


def test_what_a_report_does_not_name_is_called_unknown_and_goes_out_unnamed(film, runPython, tmp_path):
    (tmp_path / "boxes.csv").write_text("finding,x_min,y_min,x_max,y_max\nNodule,1,2,3,4\n")
    command = ("boxes", "to-dicom", film.database.folder, "boxes.csv", film.path)
    runPython("-m", "monai_sr_bundle", *command, cwd=tmp_path)
    film.load()
    assert film.words == [("Nodule", "Unknown", None)]
    film.save(film.boxes, tmp_path / "again.dcm")
    film.removeBoxes()
    film.load(tmp_path / "again.dcm")
    assert film.words == [("Nodule", "Unknown", None)]


def test_a_box_over_the_edge_is_cut_there_and_one_outside_is_refused(film, tmp_path):
    film.save([film.addBox([0, 1, -3, 5, 15, 30])])
    film.removeBoxes()
    film.load()
    np.testing.assert_allclose(film.bounds, [[0, 1, 0, 5, 15, 20]], atol=1e-3)
    (node,) = film.boxes
    node.SetCenter(500, 500, 0)
    with pytest.raises(
        InputError, match="The box 'Nodule' lies outside 'chest'. Move it onto the volume, or remove it"
    ):
        film.save([node], tmp_path / "out.dcm")
    assert not (tmp_path / "out.dcm").exists()


def test_what_was_not_understood_is_told(film, runPython):
    film.save([film.addBox(finding=name) for name in ("Nodule", "Mass")])
    code = (
        "import sys, pydicom; read = pydicom.dcmread(sys.argv[1])\n"
        "group = read.ContentSequence[-1].ContentSequence[0]\n"
        "region = next(item for item in group.ContentSequence if item.ValueType == 'SCOORD')\n"
        "region.GraphicType, region.GraphicData = 'POINT', [1.0, 2.0]; read.save_as(sys.argv[1])"
    )
    runPython("-c", code, film.path)
    film.removeBoxes()
    summary = film.load().summary
    assert summary == "Boxes read: 1, from sr.dcm.\nsr.dcm, group 1: is a point (POINT), no box, and is left out."


def test_what_cannot_be_saved_says_why_and_writes_nothing(application, film, tmp_path):
    box, older = film.addBox(), tmp_path / "there.dcm"
    older.write_bytes(b"an older report")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, nodes, path, options in (
        ("There are no boxes to save. Draw one first.", [], None, {}),
        ("'sr.json' does not end in .dcm", [box], tmp_path / "sr.json", {}),
        ("'.*there.dcm' exists already. Choose another name.", [box], older, {}),
        (
            "'film.dcm' is a file of 'chest', which is never replaced.",
            [box], film.database.folder / "film.dcm", {"overwrite": True},
        ),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            film.save(nodes, path, **options)
    message = film.save([box], older / "sr.dcm").message
    assert message.endswith("there.dcm is not a folder. Choose another folder for the result.")
    film.volume = application.addVolume(np.zeros((1, 24, 20), np.int16), name="drawn")
    with pytest.raises(InputError, match="'drawn' was not loaded from DICOM, .* Load it"):
        film.save([box])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert box.GetAttribute(box_nodes.TRACKING) == ""


def test_what_cannot_be_loaded_says_why_and_adds_nothing(application, film, films, workerPython, tmp_path):
    film.save([film.addBox()])
    other = Case(application, films[1], workerPython, film.path)
    film.removeBoxes()
    before = application.nodeIds()
    assert other.load().message.startswith("sr.dcm: its 1 box(es) belong to other images than the 1 given.")
    image = film.database.folder / "film.dcm"
    assert film.load(image).message.endswith("Pass the report, not the image.")
    (tmp_path / "broken.dcm").write_bytes(film.path.read_bytes()[:700])
    assert film.load(tmp_path / "broken.dcm").message.startswith("broken.dcm: ")
    (tmp_path / "text.dcm").write_text("no report")
    assert film.load(tmp_path / "text.dcm").message.startswith("text.dcm: is not a DICOM file")
    assert film.load(tmp_path / "gone.dcm").message.endswith("gone.dcm: is not a file. Check the spelling.")
    film.volume.RemoveAttribute(volumes.UIDS)
    with pytest.raises(InputError, match="'chest' was not loaded from DICOM"):
        film.load()
    assert application.nodeIds() == before


def test_a_volume_that_left_its_place_has_no_report(stack):
    box = stack.addBox([1, 4, 3, 9, 2, 7])
    stack.volume.SetOrigin(0, 0, 0)
    with pytest.raises(InputError, match="'chest' does not lie where its DICOM files say.* Load it again"):
        stack.save([box])
    stack.volume.SetAttribute(volumes.UIDS, stack.database.uids[0])
    with pytest.raises(InputError, match="'chest' has 5 slices in 1 DICOM files, expected one file for each"):
        stack.save([box])


def test_a_volume_that_is_removed_meanwhile_gets_no_boxes(application, film):
    film.save([film.addBox()])
    film.removeBoxes()
    reading = film.beginLoading()
    application.scene.RemoveNode(film.volume)
    assert ended(reading).message.startswith("The volume was removed while its report was read.")
    assert film.boxes == []


def test_canceling_leaves_no_file_and_nothing_in_the_temporary_folder(film, temporary):
    saving = film.beginSaving([film.addBox()])
    saving.cancel()
    assert ended(saving).message == "Canceled. Nothing was written."
    assert not film.path.exists()
    assert os.listdir(temporary) == []


def test_files_that_cannot_be_brought_together_are_told_and_nothing_is_left(film, temporary, monkeypatch):
    def full(file, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("SuperResolutionLib.command._link", full)
    saving = film.save([film.addBox()])
    assert saving.message == "The report cannot begin. No space left on device. Make room, and try again."
    assert os.listdir(temporary) == []
