"""The server with a real PACS: images over DICOMweb, results and reports by STOW-RS, reports of others."""

from __future__ import annotations

import io
import json
import socket
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from drawn_readings import box, reading
from labelling import catalogue, rest_boxes
from labelling.access import LOCAL
from labelling.box_store import BoxStore
from labelling.catalogue import WebCatalogue
from labelling.context import STORE_FILE, open_context
from labelling.errors import PacsError
from monai_sr_bundle.boxes.dicom_report_read import read_report
from monai_sr_bundle.boxes.dicom_report_write import write_report
from monai_sr_bundle.boxes.readings import ImageIdentity, format_readings
from monai_sr_bundle.datasets.phantom import draw_phantom

from tests.images.dicom_files import ct_series, radiograph


def film(seed):
    return np.rint(draw_phantom(64, seed=seed) * 1000).astype(np.uint16)


def renewed(file):
    """Read a file, and give it a study, a series and an instance of its own."""
    header = pydicom.dcmread(file)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(header, keyword, pydicom.uid.generate_uid())
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


@pytest.fixture(scope="module")
def pacs(orthanc, tmp_path_factory):
    """A PACS with a DX, a CR and a CT of three slices; their names on the server."""
    folder = tmp_path_factory.mktemp("images")
    slices = np.stack([np.rint(draw_phantom(48, seed=2) * 1400 + 24 + k).astype(np.int16) for k in range(3)])
    headers = [renewed(radiograph(folder / f"{name}.dcm", film(0), modality=name)) for name in ("DX", "CR")]
    headers += [pydicom.dcmread(file) for file in ct_series(folder / "ct", slices)]
    client = DICOMwebClient(orthanc)
    client.store_instances(headers)
    names = {header.Modality: str(header.SeriesInstanceUID) for header in headers}
    return {"url": orthanc, "client": client, "headers": headers, **names}


@pytest.fixture(scope="module")
def server(serve, pacs, tmp_path_factory):
    store = tmp_path_factory.mktemp("pacs") / "store"
    return serve(pacs["url"], store, bundles="chest_xray_edsr_x4,chest_ct_edsr_x4")


def images(server):
    return sorted(server.get("/datastore/", params={"output": "all"})["objects"])


def stored(pacs, modality, tmp_path):
    """The series of a modality in the PACS, as files."""
    files = []
    for entry in pacs["client"].search_for_series(search_filters={"Modality": modality}):
        series = pydicom.Dataset.from_json(entry)
        datasets = pacs["client"].retrieve_series(series.StudyInstanceUID, series.SeriesInstanceUID)
        for dataset in datasets:
            files.append(tmp_path / f"{dataset.SOPInstanceUID}.dcm")
            dataset.save_as(files[-1], enforce_file_format=True)
    return files


def test_radiographs_and_ct_are_listed_and_known(server, pacs):
    assert images(server) == sorted([pacs["DX"], pacs["CR"], pacs["CT"]])
    info = server.get("/datastore/image/info", params={"image": pacs["CT"]})
    assert (info["columns"], info["rows"], info["slices"]) == (48, 48, 3)
    assert info["series_instance_uid"] == pacs["CT"]
    for header in pacs["headers"]:  # Slicer knows an image by one of its instances
        params = {"sop_instance_uid": str(header.SOPInstanceUID)}
        assert server.get("/datastore/image/find", params=params)["id"] == pacs[header.Modality]
    assert server.call("GET", "/datastore/image/find", params={"sop_instance_uid": "2.25.1"}).status_code == 404
    assert "in a PACS" in server.call("GET", "/datastore/image/find", params={"sha256": "0" * 64}).text


def test_a_series_is_one_file_or_a_zip_of_its_files(server, pacs):
    def get(**params):
        return server.call("GET", "/datastore/image", params={"image": pacs["CT"], **params}).content

    volume = nibabel.Nifti1Image.from_bytes(get())
    assert volume.shape == (48, 48, 3)
    headers = sorted((h for h in pacs["headers"] if h.Modality == "CT"), key=lambda h: -h.InstanceNumber)
    np.testing.assert_allclose(
        (volume.affine @ [0, 0, 0, 1])[:3] * (-1, -1, 1), headers[0].ImagePositionPatient, atol=1e-3
    )
    hu = headers[0].pixel_array.astype(int) + int(headers[0].RescaleIntercept)
    np.testing.assert_array_equal(volume.get_fdata()[..., 0].T, hu)
    assert len(zipfile.ZipFile(io.BytesIO(get(series="zip"))).namelist()) == 3


@pytest.mark.parametrize(
    ("modality", "bundle"), [("DX", "chest_xray_edsr_x4"), ("CR", "chest_xray_edsr_x4"), ("CT", "chest_ct_edsr_x4")]
)
def test_a_result_is_stored_as_a_derived_series_and_never_offered(server, pacs, dciodvfy, tmp_path, modality, bundle):
    before = images(server)
    options = {"store": True} | ({"error_bars": True} if modality == "DX" else {})
    answer = server.call(
        "POST", f"/infer/{bundle}", params={"image": pacs[modality], "output": "json"},
        data={"params": json.dumps(options)},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    uids = answer.json()["stored"]
    if modality == "DX":
        (error_bars,) = stored(pacs, "OT", tmp_path)
        assert error_bars.stem == uids.pop()
        assert dciodvfy(error_bars) == []
    assert len(uids) == (3 if modality == "CT" else 1)
    derived = {pydicom.dcmread(file).SOPInstanceUID: file for file in stored(pacs, modality, tmp_path)}
    source = next(header for header in pacs["headers"] if header.Modality == modality)
    for uid in uids:
        header = pydicom.dcmread(derived[uid])
        assert header.ImageType[0] == "DERIVED"
        assert header.Rows == 4 * source.Rows
        assert header.StudyInstanceUID == source.StudyInstanceUID
        assert header.SeriesInstanceUID != source.SeriesInstanceUID
        assert dciodvfy(derived[uid]) == []
    assert images(server) == before


def test_reports_are_stored_read_by_others_and_imported_again(server, pacs, dciodvfy, dsrdump, tmp_path):
    boxes = {"DX": box(5, 6, 20.5, 30), "CT": box(7, 8, 20, 21, slice_index=1)}
    for modality, one in boxes.items():
        image = pacs[modality]
        content = json.loads(format_readings([reading("ada", one, image=ImageIdentity(image))]))
        answer = server.call("PUT", f"/boxes/{image}", json=content)
        assert answer.status_code == 200, answer.text
    document = answer.json()["readings"][0]["boxes"][0]
    slice_header = sorted(
        (header for header in pacs["headers"] if header.Modality == "CT"), key=lambda h: h.ImagePositionPatient[2]
    )[1]
    assert document["sop_instance_uid"] == slice_header.SOPInstanceUID
    answer = server.call("POST", "/export/pacs", params={"names": True})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["stored"]) == 2
    for file in stored(pacs, "SR", tmp_path):
        assert dciodvfy(file) == []
        dump = dsrdump(file)
        assert "Image Region" in dump
        assert "POLYLINE" in dump
        (only,) = read_report(file).boxes
        assert only.reader.rstrip("^") == "ada"
        expected = boxes["CT" if only.sop_instance_uid == slice_header.SOPInstanceUID else "DX"]
        assert only.xyxy == pytest.approx(expected.xyxy, abs=0.01)
    assert server.call("POST", "/import/pacs").json()["reports"] == 0  # its own: their readers would count twice


def test_reports_of_others_are_imported(server, pacs, tmp_path):
    slices = sorted((header for header in pacs["headers"] if header.Modality == "CT"), key=lambda h: h.InstanceNumber)
    foreign_box = box(7, 8, 20, 21, sop_instance_uid=slices[1].SOPInstanceUID, reader="Grey^Zoe", finding="Mass")
    write_report([foreign_box], slices, tmp_path / "other.dcm", complete=True)  # in millimetres of the patient
    pacs["client"].store_instances([pydicom.dcmread(tmp_path / "other.dcm")])
    imported = server.call("POST", "/import/pacs").json()
    assert imported["reports"] == 1, imported
    assert imported["saved"] == [{"image": pacs["CT"], "reader": "Grey^Zoe", "number": 1}]
    versions = server.get(f"/boxes/{pacs['CT']}")["versions"]
    (saved_box,) = [version["readings"][0]["boxes"][0] for version in versions if version["reader"] == "Grey^Zoe"]
    assert saved_box["xyxy"] == pytest.approx([7, 8, 20, 21], abs=0.01)
    assert (saved_box["sop_instance_uid"], saved_box["slice_index"]) == (slices[1].SOPInstanceUID, 1)
    assert server.call("POST", "/import/pacs").json()["saved"] == imported["saved"]  # the same version


def test_a_new_study_is_listed_at_once(server, pacs, tmp_path):
    new = renewed(radiograph(tmp_path / "new.dcm", film(5)))
    pacs["client"].store_instances([new])
    assert new.SeriesInstanceUID in images(server)


def test_a_box_in_millimetres_of_the_film_that_is_sent_lies_where_it_was_drawn(server, pacs, tmp_path):
    """Slicer takes another spacing from the DICOM of a calibrated film: Imager Pixel Spacing."""
    spacing = {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.3, 0.15]}
    header = renewed(radiograph(tmp_path / "film.dcm", film(8), **spacing))
    pacs["client"].store_instances([header])
    name = str(header.SeriesInstanceUID)
    sent = nibabel.Nifti1Image.from_bytes(server.call("GET", "/datastore/image", params={"image": name}).content)
    assert server.call("POST", "/activelearning/random", json={}).json()["name"].endswith(".nii")
    np.testing.assert_array_equal(sent.get_fdata()[..., 0].T, 4095 - header.pixel_array)  # high values are dark
    corners = [(sent.affine @ [*corner, 0, 1])[:3] for corner in ((9.5, 19.5), (29.5, 49.5))]
    centre, size = np.mean(corners, axis=0), np.abs(np.subtract(*corners))
    markup = {"type": "ROI", "coordinateSystem": "RAS", "center": centre.tolist(), "size": [*size[:2].tolist(), 1]}
    files = {"label": ("boxes.json", json.dumps({"markups": [markup]}))}
    server.send(
        "PUT", "/datastore/label", params={"image": name}, files=files, data={"params": '{"client_id": "pc-7"}'}
    )
    (version,) = server.get(f"/boxes/{name}")["versions"]
    assert version["readings"][0]["boxes"][0]["xyxy"] == pytest.approx([10, 20, 30, 50], abs=0.01)
    file = server.call("GET", "/datastore/image", params={"image": name, "series": "zip"}).content
    assert pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID == header.SOPInstanceUID


def test_a_series_that_was_on_its_way_is_complete_when_it_has_arrived(server, pacs, tmp_path):
    slices = [renewed(file) for file in ct_series(tmp_path / "ct", np.zeros((5, 48, 48), np.int16))]
    for header in slices:
        header.SeriesInstanceUID, header.StudyInstanceUID = "2.25.77", "2.25.78"
    pacs["client"].store_instances(slices[:3])
    info = {"params": {"image": "2.25.77"}}
    assert server.get("/datastore/image/info", **info)["slices"] == 3
    pacs["client"].store_instances(slices[3:])
    assert "2.25.77" in images(server)
    assert server.get("/datastore/image/info", **info)["slices"] == 5


def test_a_radiograph_keeps_its_name_and_readings_when_another_comes_into_its_series(server, pacs, tmp_path):
    frontal, lateral = (renewed(radiograph(tmp_path / f"{seed}.dcm", film(seed))) for seed in (6, 7))
    lateral.StudyInstanceUID, lateral.SeriesInstanceUID = frontal.StudyInstanceUID, frontal.SeriesInstanceUID
    name = str(frontal.SeriesInstanceUID)
    pacs["client"].store_instances([frontal])
    document = json.loads(format_readings([reading("ada", box(1, 2, 30, 40), image=ImageIdentity(name))]))
    server.send("PUT", f"/boxes/{name}", json=document)
    pacs["client"].store_instances([lateral])
    assert {name, str(lateral.SOPInstanceUID)} <= set(images(server))
    assert str(frontal.SOPInstanceUID) not in images(server)
    (version,) = server.get(f"/boxes/{name}")["versions"]
    assert version["readings"][0]["boxes"][0]["sop_instance_uid"] == frontal.SOPInstanceUID
    for header, expected in ((frontal, name), (lateral, lateral.SOPInstanceUID)):
        image = server.get("/datastore/image/find", params={"sop_instance_uid": header.SOPInstanceUID})
        assert image["id"] == expected


def test_reports_are_not_imported_as_those_of_others_where_the_pacs_has_answered_too_late(pacs, tmp_path, monkeypatch):
    context = open_context(pacs["url"], {"store": str(tmp_path / "store"), "bundles": "chest_xray_edsr_x4"})
    header = renewed(radiograph(tmp_path / "film.dcm", film(9)))
    pacs["client"].store_instances([header])
    image = context.catalogue.identity(context.catalogue.find_instance(str(header.SOPInstanceUID)))
    context.store.save(reading("ada", box(1, 2, 30, 40), image=image), actor="ada", based_on=0)
    store = WebCatalogue.store

    def store_late(catalogue, paths):
        store(catalogue, paths)
        raise PacsError("the PACS does not answer")

    monkeypatch.setattr(WebCatalogue, "store", store_late)
    with pytest.raises(PacsError):
        rest_boxes.post_export_to_pacs(context, LOCAL)
    rest_boxes.post_import_from_pacs(context, LOCAL)
    assert context.store.images()[image.id] == {"ada": 1}
    context.close()


def test_a_pacs_that_is_down_or_slow_is_said_to_be_and_boxes_are_there(serve, tmp_path, monkeypatch):
    store = BoxStore(tmp_path / "store" / STORE_FILE)
    store.save(reading("ada", box()), actor="ada", based_on=0)
    store.close()
    server = serve("http://127.0.0.1:9/dicom-web", tmp_path / "store", bundles="chest_xray_edsr_x4")
    for method, path in (("GET", "/datastore/"), ("GET", "/boxes/chest.png"), ("POST", "/import/pacs")):
        answer = server.call(method, path)
        assert (answer.status_code, answer.json()["error"]) == (502, "the PACS cannot be reached. Is it running?")
    assert server.get("/boxes/")["images"] == {"chest.png": {"ada": 1}}
    monkeypatch.setattr(catalogue, "PACS_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(PacsError, match=r"does not answer within 0\.2 s"):
            WebCatalogue(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path).names()


def test_unknown_series_and_traversal_reach_nothing(server):
    for name in ("1.2.3.4", "..%2Fx"):
        assert requests.get(f"{server.url}/boxes/{name}", timeout=60).status_code == 404
