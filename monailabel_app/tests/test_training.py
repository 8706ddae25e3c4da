"""Fine-tuning, promotion and what survives a server that is killed; a real server with a tiny network."""

from __future__ import annotations

import json
import threading
from collections import Counter

import nibabel
import numpy as np
import pytest
import requests
from drawn_readings import box, reading
from labelled import tiny_bundle, with_error_bars, write_images
from labelling.box_store import BoxStore
from labelling.catalogue import FolderCatalogue
from labelling.errors import ConflictError
from labelling.training_data import LabelledImage, agreed_reading, require_splits, write_data_set
from labelling.training_process import TrainingTask, _judge, calibrate, run
from monai_sr_bundle.boxes.readings import ImageIdentity, format_readings
from monai_sr_bundle.calibrate.training_inputs import read_training_fingerprints
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.transforms.pairs import LoadHighResd, pair_items
from monai_sr_bundle.uncertainty.error_bars import has_error_bars
from processes import wait_for

from tests.images.dicom_files import ct_series, radiograph

BUNDLE = "chest_xray_edsr_x4"
TRAINING_SECONDS = 500
HELD_OUT = 50
"""Images, each of a patient of its own: enough to calibrate error bars."""


@pytest.fixture(scope="module")
def server(serve, tmp_path_factory):
    """A server without tokens, whose images two readers have read."""
    folder = tmp_path_factory.mktemp("training")
    sides = write_images(folder / "studies", test=HELD_OUT)
    bundle = with_error_bars(tiny_bundle(folder / "bundles"))
    server = serve(folder / "studies", folder / "store", bundles=str(bundle))
    for name in sides:
        for reader, shift in (("ada", 0), ("bob", 2)):
            one = reading(reader, box(10 + shift, 10, 40 + shift, 40), image=ImageIdentity(name))
            answer = server.call("PUT", f"/boxes/{name}", json=json.loads(format_readings([one])))
            assert answer.status_code == 200, answer.text
    return server


def train(server, **params):
    answer = server.call("POST", f"/train/{BUNDLE}", json=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["job"]


def state_of(server, job):
    return server.get(f"/train/{job}")


def finished(server, job):
    def over():
        state = state_of(server, job)
        return state if state["state"] not in ("preparing", "training", "comparing") else None

    return wait_for(over, TRAINING_SECONDS, server.store / "jobs" / job / "log.txt")


def test_a_training_is_compared_on_held_out_images_promoted_and_rolled_back(server):
    shipped = server.get(f"/model/{BUNDLE}")
    assert shipped["in_use"] == "shipped"
    job = train(server, iterations=60, seed=1)
    assert server.call("POST", f"/train/{BUNDLE}", json={}).status_code == 409  # one at a time
    done = finished(server, job)
    assert done["state"] == "done", (server.store / "jobs" / job / "log.txt").read_text()[-3000:]
    report = done["report"]
    assert report["images"] == {"train": 2, "val": 1, "test": HELD_OUT}
    assert report["boxes"] == 3 + HELD_OUT  # one each, fused from two readers
    for figure in ("psnr", "box_psnr"):
        measured = report["figures"][figure]
        assert measured["difference"] == pytest.approx(measured["after"] - measured["before"], abs=1e-6)
        assert measured["low"] <= measured["difference"] <= measured["high"]
        assert measured["patients"] == HELD_OUT
    assert not (server.store / "jobs" / job / "data").exists()  # no copies of images stay
    assert done["promoted"] == report["not_worse"]
    assert report["not_worse"], report
    model = server.get(f"/model/{BUNDLE}")
    assert model["in_use"] == job
    assert model["weights_sha256"] != shipped["weights_sha256"]
    result = server.call(
        "POST", f"/infer/{BUNDLE}", params={"image": next(iter(image_names(server))), "output": "json"}
    )
    assert result.status_code == 200, result.text
    assert report["error_bars"] == "Error bars were calibrated anew on 50 held-out images of 50 patients."
    calibrated = result.json()["error_bars"]["calibrated_on"]
    assert (calibrated["images"], calibrated["patients"]) == (HELD_OUT, HELD_OUT)
    assert server.call("POST", f"/model/{BUNDLE}/promote", json={"job": job}).status_code == 409
    back = server.call("POST", f"/model/{BUNDLE}/rollback").json()
    assert (back["in_use"], back["weights_sha256"]) == ("shipped", shipped["weights_sha256"])
    assert server.call("POST", f"/model/{BUNDLE}/promote", json={"job": job}).json()["in_use"] == job
    actions = [row["action"] for row in server.get("/audit")["rows"]]
    assert Counter(actions)["promote"] == 2
    assert Counter(actions)["roll back"] == 1


def image_names(server):
    return server.get("/datastore/", params={"output": "all"})["objects"]


def test_a_training_is_cancelled(server):
    job = train(server, iterations=100_000)
    wait_for(lambda: state_of(server, job)["state"] == "training", TRAINING_SECONDS)
    wait_for(lambda: state_of(server, job).get("fraction", 0) > 0, TRAINING_SECONDS)
    image = next(iter(image_names(server)))
    for number in range(10):
        one = reading("cid", box(1, 2, 30 + number, 40), image=ImageIdentity(image))
        content = json.loads(format_readings([one]))
        answer = server.call("PUT", f"/boxes/{image}", params={"based_on": number}, json=content)
        assert answer.status_code == 200
    assert server.call("GET", "/train/", params={"check_if_running": True}).status_code == 200
    assert server.call("DELETE", "/train/").json()["state"] == "cancelled"  # as MONAI Label's clients do
    assert server.call("GET", "/train/", params={"check_if_running": True}).status_code == 404
    assert server.call("DELETE", f"/train/{job}").status_code == 409
    assert state_of(server, job)["state"] == "cancelled"


def test_a_killed_server_loses_nothing_and_ends_its_training(server):
    job = train(server, iterations=100_000)
    wait_for(lambda: state_of(server, job).get("fraction", 0) > 0, TRAINING_SECONDS)
    acknowledged: list[int] = []
    image = next(iter(image_names(server)))

    def submit():
        number = 0
        while True:
            one = reading("gil", box(1, 2, 30 + number % 50, 40), image=ImageIdentity(image))
            try:
                answer = server.call(
                    "PUT", f"/boxes/{image}", params={"based_on": number}, json=json.loads(format_readings([one]))
                )
            except requests.RequestException:
                return
            if answer.status_code == 200:
                number = answer.json()["number"]
                acknowledged.append(number)

    reader = threading.Thread(target=submit)
    reader.start()
    wait_for(lambda: len(acknowledged) > 20, 100)
    server.kill()
    reader.join()
    server.start()
    assert server.get("/audit")["problems"] == []
    history = server.get(f"/boxes/{image}/history", params={"reader": "gil"})["versions"]
    assert {version["number"] for version in history} >= set(acknowledged)
    assert len(history) - len(acknowledged) <= 1  # one whose answer was on its way
    assert state_of(server, job)["state"] == "interrupted"
    assert server.get(f"/model/{BUNDLE}")["in_use"] != "shipped"


def test_the_next_image_is_the_one_that_readers_disagree_on(server):
    images = sorted(image_names(server))
    for name, shift in ((images[0], 20), (images[1], 5)):
        versions = server.get(f"/boxes/{name}/history", params={"reader": "bob"})["versions"]
        one = reading("bob", box(10 + shift, 10, 40 + shift, 40), image=ImageIdentity(name))
        server.call(
            "PUT", f"/boxes/{name}", params={"based_on": len(versions)}, json=json.loads(format_readings([one]))
        )
    server.call("PUT", "/activelearning/readers", json={"readers": 9})
    chosen = [server.call("POST", "/activelearning/disagreement", json={"client_id": "fay"}).json()["id"] for _ in "12"]
    assert chosen == images[:2]


def test_adjudication_counts_more_than_consensus_and_that_more_than_one_reader(tmp_path):
    store = BoxStore(tmp_path / "boxes.sqlite")
    image = "chest.png"
    assert agreed_reading(store.current(image)) is None
    store.save(reading("ada", box(10, 10, 30, 30)), actor="ada", based_on=0)
    assert agreed_reading(store.current(image)).boxes[0].x_min == 10
    store.save(reading("bob", box(12, 10, 32, 30)), actor="bob", based_on=0)
    assert agreed_reading(store.current(image)).boxes[0].x_min == pytest.approx(11)
    store.save(reading("consensus", box(13, 10, 30, 30)), actor="eve", based_on=0)
    assert agreed_reading(store.current(image)).boxes[0].x_min == 13


def test_too_few_patients_are_refused(tmp_path):
    sides = write_images(tmp_path / "images")
    catalogue = FolderCatalogue(tmp_path / "images")
    images = [
        LabelledImage(name, catalogue.source(name), catalogue.patient(name), (box(1, 2, 3, 4),)) for name in sides
    ]
    require_splits(images)
    with pytest.raises(ConflictError, match="0 held out"):
        require_splits([image for image in images if sides[image.name] != "test"])
    with pytest.raises(ConflictError, match="no image to train with has a box"):
        require_splits([LabelledImage(each.name, each.source, each.patient, ()) for each in images])


def test_error_bars_need_enough_held_out_images(tmp_path):
    catalogue = FolderCatalogue(tmp_path / "images")
    images = [
        LabelledImage(name, catalogue.source(name), catalogue.patient(name), ())
        for name in write_images(tmp_path / "images")
    ]
    data = write_data_set(images, "CXR", tmp_path / "data")
    shipped, new = with_error_bars(tiny_bundle(tmp_path / "shipped")), tiny_bundle(tmp_path / "new")
    sentence = calibrate(str(new), str(shipped), data)
    assert sentence.startswith(
        "No error bars: those of the shipped weights do not hold for these, and the set of held-out"
    )
    assert "2 images of 2 patients (CXR), expected at least 50 of 20 patients" in sentence
    assert not has_error_bars(find_bundle(str(new)))
    assert calibrate(str(shipped), str(new), data) == "No error bars: chest_xray_edsr_x4 is shipped without."


def test_weights_remember_all_trainings_before_them(tmp_path):
    """Also where the weights in between have no error bars: a later calibration must not use images of any of them."""
    shipped = with_error_bars(tiny_bundle(tmp_path / "shipped"))
    before, generations = shipped, [read_training_fingerprints(find_bundle(str(shipped)))]
    for number in range(2):
        folder = tmp_path / str(number)
        sides = write_images(folder / "images", size=128 + 4 * number)
        catalogue = FolderCatalogue(folder / "images")
        images = [
            LabelledImage(name, catalogue.source(name), catalogue.patient(name), (box(10, 10, 40, 40),))
            for name in sides
        ]
        task = TrainingTask(str(before), str(shipped), tuple(images), folder / "new" / BUNDLE, iterations=1)
        run(task, folder)
        assert not has_error_bars(find_bundle(str(task.target)))
        before = task.target
        generations.append(read_training_fingerprints(find_bundle(str(before))))
    assert generations[0] < generations[1] < generations[2]


def test_dicom_becomes_a_data_set_with_its_boxes_in_place(tmp_path):
    volume = np.zeros((4, 32, 40), np.int16)
    volume[2, 8:16, 20:30] = 1500
    ct_series(tmp_path / "ct" / "a", volume)
    film = np.full((40, 32), 500, np.uint16)
    film[8:16, 20:30] = 3000
    (tmp_path / "dx").mkdir()
    radiograph(tmp_path / "dx" / "film.dcm", film)
    for kind, modality in (("ct", "CT"), ("dx", "CXR")):
        catalogue = FolderCatalogue(tmp_path / kind)
        (name,) = catalogue.names()
        index = {"slice_index": 2} if kind == "ct" else {}
        images = [LabelledImage(name, catalogue.source(name), "patient", (box(20, 8, 30, 16, **index),))]
        data = write_data_set(images, modality, tmp_path / f"{kind}_data")
        (record,) = read_manifest(data, split=None)
        assert read_boxes(data)[record.file][0].xyxy == (20, 8, 30, 16)
        items = pair_items(str(data), modality, record.split)
        (item,) = [each for each in items if len(each["boxes_xyxy"])]
        window = (-1024.0, 1000.0) if kind == "ct" else (0.0, 255.0)
        target = LoadHighResd("label", window=window)(item)
        left, top, right, bottom = (int(edge) for edge in target["boxes_xyxy"][0])
        pixels = target["label"][0].numpy()
        inside = pixels[top:bottom, left:right]
        outside = np.delete(
            pixels.ravel(), np.ravel_multi_index(np.mgrid[top:bottom, left:right], pixels.shape).ravel()
        )
        sign = 1 if kind == "ct" else -1  # MONOCHROME1: the largest number is the darkest
        assert (sign * inside).min() > (sign * outside).max()


@pytest.mark.parametrize("shape", [(40, 32, 4), (40, 32)])
def test_a_nifti_in_metres_or_without_depth_has_its_millimetres_in_the_data_set(tmp_path, shape):
    image = nibabel.Nifti1Image(np.full(shape, -900, np.int16), np.diag([0.0008, 0.0007, 0.0025, 1]))
    image.header.set_xyzt_units("meter")
    (tmp_path / "images").mkdir()
    nibabel.save(image, tmp_path / "images" / "ct.nii.gz")
    catalogue = FolderCatalogue(tmp_path / "images")
    (name,) = catalogue.names()
    data = write_data_set([LabelledImage(name, catalogue.source(name), "patient", ())], "CT", tmp_path / "data")
    (record,) = read_manifest(data, split=None)
    assert record.spacing_xyz[:2] == pytest.approx((0.8, 0.7))
    assert record.shape_xyz == (*shape, 1)[:3]


def figures(low, box_low, patients=3):
    return {
        "psnr": {"low": low, "patients": patients},
        "box_psnr": {"low": box_low, "patients": patients},
    }


@pytest.mark.parametrize(
    ("measured", "not_worse", "words"),
    [
        (figures(0.2, 0.1), True, "Not worse"),
        (figures(-0.05, -0.09), True, "Not worse"),
        (figures(-0.2, 0.5), False, "whole image: may be 0.20 dB worse"),
        (figures(0.5, -0.2), False, "inside boxes: may be 0.20 dB worse"),
        (figures(0.5, 0.5, patients=1), False, "1 held-out patient"),
        ({"psnr": {"low": 1, "patients": 3}}, False, "inside boxes"),
    ],
)
def test_weights_are_judged_whole_and_inside_boxes(measured, not_worse, words):
    judged, reason = _judge(measured)
    assert judged == not_worse
    assert words in reason


def test_a_folder_is_listed_anew_when_a_file_comes_or_goes(tmp_path):
    sides = write_images(tmp_path)
    catalogue = FolderCatalogue(tmp_path)
    assert catalogue.names() == sorted(sides)
    (tmp_path / "new.png").hardlink_to(tmp_path / catalogue.names()[0])
    (tmp_path / catalogue.names()[0]).unlink()
    assert catalogue.names() == [*sorted(sides)[1:], "new.png"]


def test_a_link_to_nothing_is_no_image_and_hides_no_other(tmp_path):
    sides = write_images(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "mounted").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    assert FolderCatalogue(tmp_path).names() == sorted(sides)
