"""Anomaly boxes as DICOM Structured Reports, written and read by the package's command line in a real process."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from dicomfiles import Database
from SuperResolutionLib import box_nodes, command, dicom_report, headers, volumes
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


@pytest.fixture
def film(application, films):
    """A radiograph and its database."""
    return films[0].load(application), films[0]


@pytest.fixture
def stack(application, slices):
    """A CT and its database."""
    return slices.load(application), slices


@pytest.fixture
def save(workerPython):
    """Saves boxes and waits. Returns the ended command."""
    python, environment = workerPython

    def run(nodes, volume, path, database, **options):
        return ended(
            dicom_report.SaveReport(nodes, volume, path, database, python=python, environment=environment, **options)
        )

    return run


@pytest.fixture
def load(workerPython):
    """Loads boxes and waits. Returns the ended command."""
    python, environment = workerPython

    def run(path, volume, database):
        return ended(dicom_report.LoadReport(path, volume, database, python=python, environment=environment))

    return run


def ended(command):
    waitFor(lambda: not command.step(), what="the end of the command")
    return command


def boundsOf(application, volume):
    return [box_nodes.boundsIn(node, volume) for node in box_nodes.boxesOf(application.scene, volume)]


def trackingOf(application):
    return [node.GetAttribute(box_nodes.TRACKING) for node in box_nodes.boxesOf(application.scene)]


def removeAll(application):
    for node in box_nodes.boxesOf(application.scene):
        box_nodes.removeBox(node)


def test_a_box_on_a_radiograph_comes_back_where_it_was(application, film, save, load, tmp_path):
    volume, database = film
    box = box_nodes.addBox(volume, [0, 1, 3.25, 9.5, 2, 7.75], "Nodule", "A. Reader", 0.8)
    written = save([box], volume, tmp_path / "sr.dcm", database)
    assert (written.message, written.summary) == ("", f"1 box in {tmp_path / 'sr.dcm'}.")
    bounds, words, tracking = boundsOf(application, volume), box_nodes.wordsOf(box), trackingOf(application)
    removeAll(application)
    read = load(tmp_path / "sr.dcm", volume, database)
    assert (read.message, read.summary) == ("", "1 box from sr.dcm.")
    (loadedBoxes,) = box_nodes.boxesOf(application.scene, volume)
    assert (box_nodes.wordsOf(loadedBoxes), trackingOf(application)) == (words, tracking)
    np.testing.assert_allclose(boundsOf(application, volume), bounds, atol=2e-3)


@pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="dciodvfy, the DICOM validator (Debian: dicom3tools), is missing"
)
def test_the_report_is_valid_and_of_the_study(film, save, tmp_path):
    volume, database = film
    save([box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 0.8)], volume, tmp_path / "sr.dcm", database)
    output = subprocess.run(["dciodvfy", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False).stderr
    assert not [line for line in output.splitlines() if line.startswith("Error")], output
    assert "ComprehensiveSR" in output


@pytest.mark.skipif(not shutil.which("dsrdump"), reason="dsrdump, which reads reports (Debian: dcmtk), is missing")
def test_another_program_reads_class_reader_and_certainty(film, save, tmp_path):
    volume, database = film
    save(
        [box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A. Reader", 0.8)],
        volume,
        tmp_path / "sr.dcm",
        database,
    )
    output = subprocess.run(["dsrdump", tmp_path / "sr.dcm"], capture_output=True, text=True, check=True).stdout
    for words in ('"Nodule"', "A. Reader", 'Certainty of Finding")="80', "SCOORD"):
        assert words in output, output


def test_a_box_through_slices_of_an_oblique_ct_is_one_lesion_and_one_box_again(
    application, stack, save, load, workerPython, tmp_path
):
    volume, database = stack
    nodule = box_nodes.addBox(volume, [1, 4, 3, 9, 2, 7.5], "Nodule", "A", None)
    mass = box_nodes.addBox(volume, [4, 5, 10, 20.25, 11, 19], "Mass", "B", 0.25)
    bounds, words = boundsOf(application, volume), [box_nodes.wordsOf(node) for node in (nodule, mass)]
    written = save([nodule, mass], volume, tmp_path / "sr.dcm", database)
    assert written.summary.startswith("2 boxes in "), written.message
    tracking = trackingOf(application)
    assert all(uid.startswith("2.25.") for uid in tracking)
    python, environment = workerPython
    subprocess.run(
        [python, "-m", "monai_sr_bundle", "boxes", "from-dicom", "sr.dcm", "boxes.csv", "--image", database.folder],
        cwd=tmp_path, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    rows = (tmp_path / "boxes.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[6] for row in rows) == ["1", "2", "3", "4"]
    removeAll(application)
    load(tmp_path / "sr.dcm", volume, database)
    assert trackingOf(application) == tracking
    assert [box_nodes.wordsOf(node) for node in box_nodes.boxesOf(application.scene)] == words
    np.testing.assert_allclose(boundsOf(application, volume), bounds, atol=2e-3)
    assert application.subjectHierarchy.GetItemByDataNode(box_nodes.boxesOf(application.scene)[0])


def test_slices_are_found_by_their_place_and_not_by_the_order_of_the_files(stack):
    volume, database = stack
    files = [database.fileForInstance(uid) for uid in database.uids]
    expected = headers.slicesOf(volume, files, database)
    assert expected == database.uids
    volume.SetAttribute(volumes.UIDS, " ".join(reversed(database.uids)))
    assert headers.slicesOf(volume, files[::-1], database) == expected


def test_a_second_report_says_that_it_is_the_same_lesion(film, save, tmp_path, application, load):
    volume, database = film
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 0.8)
    save([box], volume, tmp_path / "one.dcm", database)
    box_nodes.describe(box, "Mass", "A", 0.9)
    save([box], volume, tmp_path / "two.dcm", database)
    for name in ("one.dcm", "two.dcm"):
        load(tmp_path / name, volume, database)
    assert len(set(trackingOf(application))) == 1
    assert [box_nodes.wordsOf(node)[0] for node in box_nodes.boxesOf(application.scene)] == ["Mass", "Nodule", "Mass"]


def test_what_a_report_does_not_name_is_called_unknown_and_goes_out_unnamed(
    application, film, save, load, workerPython, tmp_path
):
    volume, database = film
    (tmp_path / "boxes.csv").write_text("finding,x_min,y_min,x_max,y_max\nNodule,1,2,3,4\n")
    python, environment = workerPython
    subprocess.run(
        [python, "-m", "monai_sr_bundle", "boxes", "to-dicom", database.folder, "boxes.csv", "sr.dcm"],
        cwd=tmp_path, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    load(tmp_path / "sr.dcm", volume, database)
    (message,) = box_nodes.boxesOf(application.scene, volume)
    assert box_nodes.wordsOf(message) == ("Nodule", "Unknown", None)
    save(box_nodes.boxesOf(application.scene), volume, tmp_path / "again.dcm", database)
    removeAll(application)
    load(tmp_path / "again.dcm", volume, database)
    (loadedBoxes,) = box_nodes.boxesOf(application.scene, volume)
    assert box_nodes.wordsOf(loadedBoxes) == ("Nodule", "Unknown", None)


def test_a_box_over_the_edge_is_cut_there_and_one_outside_is_refused(application, film, save, load, tmp_path):
    volume, database = film
    box = box_nodes.addBox(volume, [0, 1, -3, 5, 15, 30], "Nodule", "A", 1)
    save([box], volume, tmp_path / "sr.dcm", database)
    removeAll(application)
    load(tmp_path / "sr.dcm", volume, database)
    np.testing.assert_allclose(boundsOf(application, volume), [[0, 1, 0, 5, 15, 20]], atol=1e-3)
    (node,) = box_nodes.boxesOf(application.scene)
    node.SetCenter(500, 500, 0)
    with pytest.raises(
        InputError, match="The box 'Nodule' lies outside 'chest'. Move it onto the volume, or remove it"
    ):
        save([node], volume, tmp_path / "out.dcm", database)
    assert not (tmp_path / "out.dcm").exists()


def test_what_was_not_understood_is_told(application, film, save, load, workerPython, tmp_path):
    volume, database = film
    nodes = [box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], name, "A", 1) for name in ("Nodule", "Mass")]
    save(nodes, volume, tmp_path / "sr.dcm", database)
    code = (
        "import sys, pydicom; read = pydicom.dcmread(sys.argv[1])\n"
        "group = read.ContentSequence[-1].ContentSequence[0]\n"
        "region = next(item for item in group.ContentSequence if item.ValueType == 'SCOORD')\n"
        "region.GraphicType, region.GraphicData = 'POINT', [1.0, 2.0]; read.save_as(sys.argv[1])"
    )
    python, environment = workerPython
    subprocess.run([python, "-c", code, tmp_path / "sr.dcm"], env=environment, check=True)
    removeAll(application)
    summary = load(tmp_path / "sr.dcm", volume, database).summary
    assert summary == "1 box from sr.dcm.\nNote: sr.dcm, group 1: is a point (POINT), no box, and is left out."


def test_what_cannot_be_saved_says_why_and_writes_nothing(application, film, save, tmp_path):
    volume, database = film
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)
    (tmp_path / "there.dcm").write_bytes(b"an older report")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    film_file = database.folder / "film.dcm"

    def refused(words, nodes=(box,), path=tmp_path / "sr.dcm", **options):
        with pytest.raises(InputError, match=words):
            save(list(nodes), volume, path, database, **options)

    refused("There are no boxes to save. Draw one first.", nodes=())
    refused("'sr.json' does not end in .dcm", path=tmp_path / "sr.json")
    refused("'.*there.dcm' exists already. Choose another name.", path=tmp_path / "there.dcm")
    refused("'film.dcm' is a file of 'chest', which is never replaced.", path=film_file, overwrite=True)
    message = save([box], volume, tmp_path / "there.dcm" / "sr.dcm", database).message
    assert message.endswith("there.dcm is not a folder. Choose another folder for the result.")
    synthetic = application.addVolume(np.zeros((1, 24, 20), np.int16), name="drawn")
    with pytest.raises(InputError, match="'drawn' was not loaded from DICOM, .* Keep its boxes as markups, or load"):
        save([box], synthetic, tmp_path / "sr.dcm", database)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert box.GetAttribute(box_nodes.TRACKING) == ""


def test_an_older_report_is_replaced_when_asked(film, save, tmp_path):
    volume, database = film
    (tmp_path / "there.dcm").write_bytes(b"an older report")
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)
    assert save([box], volume, tmp_path / "there.dcm", database, overwrite=True).message == ""
    assert (tmp_path / "there.dcm").read_bytes()[128:132] == b"DICM"


def test_what_cannot_be_loaded_says_why_and_adds_nothing(application, film, films, save, load, tmp_path):
    volume, database = film
    save([box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)], volume, tmp_path / "sr.dcm", database)
    another = films[1].load(application, "another")
    synthetic = application.addVolume(np.zeros((1, 24, 20), np.int16), name="drawn")
    removeAll(application)
    before = application.nodeIds()
    message = load(tmp_path / "sr.dcm", another, films[1]).message
    assert message.startswith("sr.dcm: its 1 box(es) belong to other images than the 1 given.")
    assert load(database.folder / "film.dcm", volume, database).message.endswith("Pass the report, not the image.")
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "sr.dcm").read_bytes()[:700])
    assert load(tmp_path / "broken.dcm", volume, database).message.startswith("broken.dcm: ")
    (tmp_path / "text.dcm").write_text("no report")
    assert load(tmp_path / "text.dcm", volume, database).message.startswith("text.dcm: is not a DICOM file")
    assert load(tmp_path / "gone.dcm", volume, database).message.endswith(
        "gone.dcm: is not a file. Check the spelling."
    )
    with pytest.raises(InputError, match="'drawn' was not loaded from DICOM"):
        load(tmp_path / "sr.dcm", synthetic, database)
    assert application.nodeIds() == before


def test_a_volume_that_left_its_place_has_no_report(stack, save, tmp_path):
    volume, database = stack
    box = box_nodes.addBox(volume, [1, 4, 3, 9, 2, 7], "Nodule", "A", 1)
    volume.SetOrigin(0, 0, 0)
    with pytest.raises(InputError, match="'chest' does not lie where its DICOM files say.* Load it again"):
        save([box], volume, tmp_path / "sr.dcm", database)
    volume.SetAttribute(volumes.UIDS, database.uids[0])
    with pytest.raises(InputError, match="'chest' has 5 slices in 1 DICOM files, expected one file for each"):
        save([box], volume, tmp_path / "sr.dcm", database)


def test_a_volume_that_is_removed_meanwhile_gets_no_boxes(application, film, save, workerPython, tmp_path):
    volume, database = film
    save([box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)], volume, tmp_path / "sr.dcm", database)
    removeAll(application)
    python, environment = workerPython
    reading = dicom_report.LoadReport(tmp_path / "sr.dcm", volume, database, python, environment)
    application.scene.RemoveNode(volume)
    assert ended(reading).message.startswith("The volume was removed while its report was read.")
    assert box_nodes.boxesOf(application.scene) == []


def test_canceling_leaves_no_file_and_nothing_in_the_temporary_folder(film, workerPython, tmp_path, monkeypatch):
    volume, database = film
    python, environment = workerPython
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)
    saving = dicom_report.SaveReport(
        [box], volume, tmp_path / "sr.dcm", database, python=python, environment=environment
    )
    saving.cancel()
    assert ended(saving).message == "Canceled. Nothing was written."
    assert not (tmp_path / "sr.dcm").exists()
    assert os.listdir(tmp_path / "temporary") == []


def test_what_is_canceled_too_late_says_that_it_was_written(film, workerPython, tmp_path):
    volume, database = film
    python, environment = workerPython
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)
    saving = dicom_report.SaveReport(
        [box], volume, tmp_path / "sr.dcm", database, python=python, environment=environment
    )
    waitFor(lambda: saving._process, saving.step)
    waitFor(lambda: saving._process.returnCode is not None)
    saving.cancel()
    assert ended(saving).message == ""
    assert (tmp_path / "sr.dcm").is_file()


def test_files_that_cannot_be_brought_together_are_told_and_nothing_is_left(film, tmp_path, monkeypatch):
    volume, database = film
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def full(file, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "_link", full)
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)
    saving = ended(dicom_report.SaveReport([box], volume, tmp_path / "sr.dcm", database))
    assert saving.message == "The report cannot begin: No space left on device. Make room, and try again."
    assert os.listdir(tmp_path / "temporary") == []


def test_a_python_that_does_not_start_is_told(film, tmp_path):
    volume, database = film
    box = box_nodes.addBox(volume, [0, 1, 3, 9, 2, 7], "Nodule", "A", 1)
    saving = ended(
        dicom_report.SaveReport([box], volume, tmp_path / "sr.dcm", database, python=str(tmp_path / "python"))
    )
    assert saving.message == "The report cannot begin: No such file or directory. Restart Slicer."
