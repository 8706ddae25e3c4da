"""Files below --studies that are replaced, renamed or damaged: boxes stay with the image they were drawn on."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import PIL.Image
import pytest
from drawn_readings import box, reading
from labelling.box_store import BoxStore
from labelling.catalogue import FolderCatalogue
from labelling.image_changes import find_problem, leave_out_changed
from monai_sr_bundle.boxes.readings import ImageIdentity, format_readings
from monai_sr_bundle.errors import OutOfMemoryError
from monai_sr_bundle.images.dicom_file import series_ending
from SuperResolutionLib.label_client import LabelClient

from tests.images.dicom_files import ct_series, phantom, radiograph

FILMS = ("f0.dcm", "f1.dcm")


def name_of(folder, number):
    """The name of an image whose folder holds another series too."""
    return folder + series_ending(f"2.25.8{number}")


PAIR = {name_of("pair", 2), name_of("pair", 3)}
CHANGED = {"f0.dcm", "ct", *PAIR}
FORMATS = ("json", "coco", "yolo", "voc", "nih", "vinbigdata", "slicer", "dicom")


def film(file, number):
    pixels = np.roll(phantom(dtype="uint16")[0], number, axis=1)
    uids = {name: f"2.25.7{number}.{n}" for n, name in enumerate(("SOPInstanceUID", "SeriesInstanceUID"))}
    return radiograph(file, pixels, PatientID=f"patient {number}", **uids)


def series(folder, number, brighter=0):
    uids = {"SeriesInstanceUID": f"2.25.8{number}", "StudyInstanceUID": "2.25.8"}
    return ct_series(folder, phantom(slices=3) + number + brighter, **uids)


@pytest.fixture(scope="module")
def server(serve, tmp_path_factory):
    """A server whose images two readers have read; then all but one film were changed. A picture is damaged."""
    parent = tmp_path_factory.mktemp("changed")
    studies = parent / "studies"
    studies.mkdir()
    for number, name in enumerate(FILMS):
        film(studies / name, number)
    series(studies / "ct", 1)
    for number in (2, 3):
        series(parent / "new", number)
        (studies / "pair").mkdir(exist_ok=True)
        for file in (parent / "new").iterdir():
            file.rename(studies / "pair" / f"{number}_{file.name}")
    (studies / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    readers = {"ada": "reader", "bob": "reader", "eve": "adjudicator", "root": "admin"}
    server = serve(studies, parent / "store", bundles="chest_xray_edsr_x4", readers=readers)
    for image in (*FILMS, *sorted(CHANGED - {"f0.dcm"})):
        one = box(1, 2, 8, 9) if image in FILMS else box(1, 2, 8, 9, slice_index=1)
        for name in ("ada", "bob"):
            document = json.loads(format_readings([reading("", one, image=ImageIdentity(image))]))
            server.send("PUT", f"/boxes/{image}", server.tokens[name], json=document)
    change(studies, parent)
    return server


def change(studies, aside):
    """Replace a film by one of its size and time, and two series by others; add a series to that of a folder."""
    shutil.copy2(studies / "f0.dcm", aside / "f0.dcm")
    film(studies / "f0.dcm", 5)
    time = (aside / "f0.dcm").stat().st_mtime_ns
    os.utime(studies / "f0.dcm", ns=(time, time))
    assert (studies / "f0.dcm").stat().st_size == (aside / "f0.dcm").stat().st_size
    for file in series(aside / "added", 4):
        file.rename(studies / "ct" / f"added_{file.name}")
    for number in (2, 3):
        for file in series(aside / "replaced", number, brighter=9):
            file.rename(studies / "pair" / f"{number}_{file.name}")


def named(sentences):
    return {sentence.partition(":")[0] for sentence in sentences}


def test_the_queue_leaves_out_what_cannot_be_read_or_was_changed_and_logs_it_once(server):
    def ask(name):
        return server.send("POST", "/activelearning/random", server.tokens[name], json={})

    server.send("PUT", "/activelearning/readers", server.tokens["root"], json={"readers": 9})
    new = {"f1.dcm", name_of("ct", 1), name_of("ct", 4)}
    answers = [ask(name) for name in ("eve", "root") for _ in range(6)]
    assert {answer["id"] for answer in answers} == new
    assert {answer["left"] for answer in answers[-3:]} == {len(new)}
    assert ask("ada")["id"] in new  # who has read what was changed
    left_out = server.get("/activelearning/left_out", server.tokens["root"])["left_out"]
    assert left_out.keys() == {"broken.png", "f0.dcm", *PAIR}
    assert "broken.png: the image cannot be read" in left_out["broken.png"]
    log = server.log.read_text()
    assert log.count("An image is left out of the queue") == len(left_out)
    assert not [name for name in left_out if name in log]


def test_readings_of_other_files_are_left_out_everywhere_and_the_others_go_on(server):
    eve, root = server.tokens["eve"], server.tokens["root"]
    for name in FORMATS:
        answer = server.call("GET", "/export", root, params={"format": name, "names": True})
        assert answer.status_code == 200, answer.text
        assert named(json.loads(answer.headers["X-Notes"])) == CHANGED, name
        if name in ("json", "coco"):
            images = [one["image"] for one in answer.json()["readings"]]
            assert {one if name == "coco" else one["id"] for one in images} == {"f1.dcm"}
    one = server.call("GET", "/export", root, params={"format": "json", "image": ["ct", "f0.dcm"]})
    assert (one.status_code, "ct: this image is not on the server any more" in one.text) == (404, True), one.text

    for image in sorted(CHANGED - {"ct"}):
        boxes = server.get(f"/boxes/{image}", eve)
        assert (boxes["image"]["id"], boxes["versions"], named(boxes["left_out"])) == (image, [], {image})
        agreed = server.get(f"/boxes/{image}/agreement", eve)
        assert (agreed["readers"], named(agreed["left_out"])) == ([], {image})
        assert server.call("POST", f"/boxes/{image}/consensus", eve).status_code == 409
        for path in (f"/datastore/label?label={image}", f"/datastore/label?label={image}&tag=reader_eve"):
            assert server.call("GET", path, eve).status_code == 404
        for version in server.get(f"/boxes/{image}/history", eve)["versions"]:
            assert (version["other_image"], "readings" in version) == (True, False)
    assert server.call("POST", "/infer/boxes?image=f0.dcm", server.tokens["ada"]).status_code == 404
    for path in ("/boxes/ct", "/boxes/ct/history", "/boxes/ct/agreement"):
        answer = server.call("GET", path, eve)
        assert (answer.status_code, "Put its files back as they were" in answer.text) == (404, True), answer.text
    assert named(server.get("/boxes/", eve)["left_out"]) == {"ct"}
    assert len(server.get("/boxes/f1.dcm", eve)["versions"]) == 2
    trained = server.call("POST", "/train/chest_xray_edsr_x4", root, json={})
    assert "1 patients were read" in trained.text

    slicer = LabelClient(server.url, server.tokens["ada"])
    image = slicer.find("2.25.75.0")["id"]
    assert (image, slicer.newest(image, "ada")) == ("f0.dcm", (1, None))
    document = json.loads(format_readings([reading("", box(3, 4, 5, 6), image=ImageIdentity("f0.dcm"))]))
    server.send("PUT", "/boxes/f0.dcm", server.tokens["bob"], params={"based_on": 1}, json=document)
    boxes = server.get("/boxes/f0.dcm", eve)  # he has read the new film
    assert ([each["reader"] for each in boxes["versions"]], "1 of 2" in boxes["left_out"][0]) == (["bob"], True)
    shutil.copy2(server.studies.parent / "f0.dcm", server.studies / "f0.dcm")
    assert [each["reader"] for each in server.get("/boxes/f0.dcm", eve)["versions"]] == ["ada"]
    assert slicer.newest(image, "ada")[1].boxes[0].xyxy == (1, 2, 8, 9)


def test_an_image_that_cannot_be_read_any_more_keeps_its_history_and_one_that_is_removed_is_forgotten(server):
    ada, root = server.tokens["ada"], server.tokens["root"]
    file = server.studies / "late.png"
    PIL.Image.new("L", (32, 32)).save(file)
    document = json.loads(format_readings([reading("", box(1, 2, 8, 9), image=ImageIdentity("late.png"))]))
    server.send("PUT", "/boxes/late.png", ada, json=document)
    server.send("PUT", "/boxes/late.png", ada, params={"based_on": 1}, json={**document, "readings": [
        {**document["readings"][0], "status": "draft"}
    ]})  # fmt: skip
    server.send("DELETE", "/boxes/late.png/ada/1", root, json={"reason": "asked for"})
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    boxes, history = (server.get(f"/boxes/late.png{end}", ada) for end in ("", "/history"))
    assert (boxes["image"]["id"], boxes["image"]["sha256"], boxes["versions"]) == ("late.png", "", [])
    assert [("other_image" in each, "readings" in each) for each in history["versions"]] == [(True, False)] * 2
    for answer in (boxes, history):
        assert "late.png: the image cannot be read now" in answer["left_out"][0]
    assert LabelClient(server.url, ada).newest("late.png", "ada") == (2, None)

    for _ in range(6):
        server.send("POST", "/activelearning/random", root, json={})
    assert "late.png" in server.get("/activelearning/left_out", root)["left_out"]
    file.unlink()
    assert "late.png" not in server.get("/activelearning/left_out", root)["left_out"]


def test_an_image_that_asks_for_too_much_memory_is_left_out_and_not_read_at_each_request(tmp_path, monkeypatch):
    (tmp_path / "studies").mkdir()
    PIL.Image.new("L", (32, 32)).save(tmp_path / "studies" / "large.png")
    catalogue, store = FolderCatalogue(tmp_path / "studies"), BoxStore(tmp_path / "boxes.sqlite")
    version = store.save(reading("ada", box(), image=ImageIdentity("large.png")), actor="ada", based_on=0)
    reads = []
    monkeypatch.setattr("monai_sr_bundle.images.memory.free_memory", lambda: reads.append(1) or 0)
    assert "large.png: the image cannot be read. " in find_problem(catalogue, store, "large.png")
    same, (sentence,) = leave_out_changed(catalogue, "large.png", [version])
    assert (same, "cannot be read now" in sentence) == ([], True)
    with pytest.raises(OutOfMemoryError, match="bytes of memory"):
        catalogue.identity("large.png")
    assert len(reads) == 1
    store.close()
