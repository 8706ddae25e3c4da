"""The server as a process, over HTTP: boxes, history, consensus, adjudication, formats, super-resolution, safety."""

from __future__ import annotations

import http.client
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import PIL.Image
import pytest
import requests
from drawn_readings import box, reading
from monai_sr_bundle import enhance
from monai_sr_bundle.boxes.readings import ImageIdentity, format_readings
from monai_sr_bundle.datasets.phantom import draw_phantom
from processes import wait_for

from tests.images.dicom_files import radiograph


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    (folder / "sub folder").mkdir()
    for index, name in enumerate(("chest0.png", "chest1.png", "sub folder/Ärzte 胸 2.png")):
        PIL.Image.fromarray(np.rint(draw_phantom(64, seed=index) * 255).astype(np.uint8)).save(folder / name)
    volume = np.stack(
        [np.rint(draw_phantom(48, seed=1).T * 1400 - 1000 + z).astype(np.int16) for z in range(4)], axis=2
    )
    affine = np.array([[-0.8, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / "ct.nii.gz")
    (folder / "notes.txt").write_text("no image")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.write(radiograph(folder.parent / "film.dcm"), "film.dcm")
    (folder.parent / "outside.png").write_bytes((folder / "chest0.png").read_bytes())
    return folder


def document(*boxes, image="chest0.png", reader="", **fields):
    one = reading(reader, *boxes, image=ImageIdentity(image), **fields)
    return json.loads(format_readings([one]))


def of_content(sha256):
    content = document(box())
    content["readings"][0]["image"]["sha256"] = sha256
    return content


def put(server, reader, content, image="chest0.png", **query):
    return server.call("PUT", f"/boxes/{image}", server.tokens[reader], json=content, params=query)


def test_images_have_names_that_are_safe(server):
    names = server.get("/datastore/", params={"output": "all"}, token=server.tokens["ada"])["objects"]
    assert sorted(name for name in names if "2.png" not in name) == ["chest0.png", "chest1.png", "ct.nii.gz"]
    assert "1 images in zips are not listed" in server.log.read_text()
    (odd,) = [name for name in names if "2.png" in name]
    assert odd.startswith("sub_folder__rzte___2.png-")
    content = server.call("GET", "/datastore/image", server.tokens["ada"], params={"image": odd}).content
    assert PIL.Image.open(io.BytesIO(content)).size == (64, 64)
    answer = server.call(
        "POST", "/infer/chest_xray_edsr_x4", server.tokens["ada"], params={"image": odd, "output": "image"}
    )
    assert PIL.Image.open(io.BytesIO(answer.content)).size == (256, 256)


def test_info_lists_bundles_and_strategies(server):
    info = server.get("/info/", token=server.tokens["ada"])
    assert info["models"]["chest_xray_edsr_x4"]["type"] == "others"
    assert info["models"]["boxes"]["type"] == "detection"  # without one, its module for Slicer submits no boxes
    assert sorted(info["strategies"]) == ["disagreement", "error_bars", "random"]
    assert str(server.store) not in json.dumps(info)


def test_a_reader_drafts_submits_and_sees_nobody_else(server):
    image = "chest1.png"
    draft = put(server, "ada", document(box(1, 2, 30, 40), image=image, status="draft"), image)
    assert draft.status_code == 200, draft.text
    submitted = put(server, "ada", document(box(1, 2, 30, 41), image=image), image, based_on=1).json()
    assert (submitted["number"], submitted["status"], submitted["actor"]) == (2, "submitted", "ada")
    identity = submitted["readings"][0]["image"]
    assert (identity["columns"], identity["rows"], len(identity["sha256"])) == (64, 64, 64)
    assert put(server, "bob", document(image=image), image).status_code == 200
    versions = server.get(f"/boxes/{image}", token=server.tokens["ada"])["versions"]
    assert [version["reader"] for version in versions] == ["ada"]
    versions = server.get(f"/boxes/{image}", token=server.tokens["eve"])["versions"]
    assert [version["reader"] for version in versions] == ["ada", "bob"]
    history = server.get(f"/boxes/{image}/history", token=server.tokens["ada"])["versions"]
    assert [version["number"] for version in history] == [1, 2]
    assert server.get("/boxes/", token=server.tokens["bob"])["images"] == {image: {"bob": 1}}


def test_consensus_adjudication_and_their_history(server):
    image = "ct.nii.gz"
    for name, shift in (("ada", 0), ("bob", 2)):
        submission = document(box(10 + shift, 10, 30 + shift, 30, slice_index=1), image=image)
        assert put(server, name, submission, image).status_code == 200
    path, eve = f"/boxes/{image}", server.tokens["eve"]
    agreed = server.get(f"{path}/agreement", token=eve)
    assert agreed["pairs"][0]["overlap"] == pytest.approx(18 / 22)
    assert min(each["overlap"] for each in agreed["with_consensus"]) > agreed["pairs"][0]["overlap"]
    consensus = server.call("POST", f"{path}/consensus", eve).json()
    assert consensus["readings"][0]["boxes"][0]["xyxy"] == pytest.approx([11, 10, 31, 30], abs=0.01)
    assert (consensus["reader"], consensus["status"]) == ("consensus", "draft")
    decided = document(box(12, 10, 31, 30, slice_index=1), image=image)
    answer = server.call("PUT", f"{path}/adjudication", eve, json=decided, params={"based_on": 1})
    assert (answer.json()["number"], answer.json()["actor"]) == (2, "eve")
    markups = server.call("GET", "/datastore/label", eve, params={"label": image, "tag": "final"}).json()["markups"]
    assert len(markups) == 1


def test_slicers_own_submit_becomes_the_readers_version(server):
    markup = {"type": "ROI", "coordinateSystem": "LPS", "center": [20, 40, 0], "size": [10, 20, 1]}
    content = json.dumps({"markups": [markup]}).encode()
    answer = server.call(
        "PUT", "/datastore/label", server.tokens["bob"], params={"image": "chest0.png", "tag": ""},
        files={"label": ("boxes.json", content)}, data={"params": json.dumps({"client_id": "pc-7", "label_info": []})},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["reader"]) == (200, "bob"), answer.text
    (version,) = server.get("/boxes/chest0.png", token=server.tokens["bob"])["versions"]
    assert version["readings"][0]["boxes"][0]["xyxy"] == [15.5, 30.5, 25.5, 50.5]
    back = server.call(
        "GET", "/datastore/label", server.tokens["bob"], params={"label": "chest0.png", "tag": "submitted"}
    )
    assert back.json()["markups"][0]["center"] == pytest.approx([20, 40, 0])


def test_monai_labels_own_client_works(server, tmp_path):
    """The class that its module for Slicer sends its requests with."""
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server.url, str(tmp_path), "pc-7")
    assert client.auth_enabled()
    with pytest.raises(Exception, match="401"):
        client.auth_token("bob", server.tokens["ada"])
    client.update_auth(client.auth_token("ada", server.tokens["ada"]))
    assert client.auth_valid_token()
    assert "chest_xray_edsr_x4" in client.info()["models"]
    sample = client.next_sample("random", {})
    assert sample["id"] in client.datastore()["objects"]
    markup = {"type": "ROI", "coordinateSystem": "LPS", "center": [20, 30, 0], "size": [10, 20, 1]}
    (tmp_path / "boxes.json").write_text(json.dumps({"markups": [markup]}))
    saved = client.save_label("chest0.png", str(tmp_path / "boxes.json"), params={"label_info": []})
    assert (saved["image"], saved["reader"]) == ("chest0.png", "ada")
    with open(client.download_label("chest0.png", "submitted")) as file:
        assert json.load(file)["markups"][0]["center"] == pytest.approx([20, 30, 0])
    boxes, figures = client.infer("boxes", "chest0.png", {})
    assert (figures["boxes"], boxes.endswith(".json")) == (1, True)
    image, figures = client.infer("chest_xray_edsr_x4", "chest0.png", {"region": [0, 0, 16, 16]})
    assert PIL.Image.open(image).size == (64, 64)
    assert figures["consistency"]["unit"] == "grey levels"


def test_export_has_pseudonyms_unless_an_admin_asks_for_names(server):
    everything = server.call("GET", "/export", server.tokens["root"], params={"format": "coco"}).json()
    readers = {statement["reader"] for statement in everything["readings"]}
    assert all(name.startswith("reader-") for name in readers)
    named = server.call("GET", "/export", server.tokens["root"], params={"format": "coco", "names": True}).json()
    assert {statement["reader"] for statement in named["readings"]} == {"ada", "bob"}
    own_export = server.call("GET", "/export", server.tokens["ada"], params={"format": "json"}).json()
    assert len({each["reader"]["id"] for each in own_export["readings"]}) == 1
    assert (
        server.call("GET", "/export", server.tokens["ada"], params={"format": "json", "names": True}).status_code == 403
    )
    archive = server.call("GET", "/export", server.tokens["root"], params={"format": "yolo"}).content
    assert "classes.txt" in zipfile.ZipFile(io.BytesIO(archive)).namelist()


def test_the_header_with_notes_on_an_export_has_an_end(serve, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    PIL.Image.fromarray(np.zeros((64, 64), np.uint8)).save(studies / "a.png")
    for number in range(30):
        (studies / f"chest{number}.png").hardlink_to(studies / "a.png")
    radiograph(studies / "film.dcm")
    server = serve(studies, tmp_path / "store", bundles="chest_xray_edsr_x4")
    readings = [reading("ada", box(1, 2, 3, 4), image=ImageIdentity(file.name)) for file in studies.iterdir()]
    sent = {"files": {"file": ("boxes.json", format_readings(readings))}, "data": {"format": "json"}}
    assert len(server.send("POST", "/import", **sent)["saved"]) == 32
    notes = json.loads(server.call("GET", "/export", params={"format": "dicom"}).headers["X-Notes"])
    assert (len(notes), notes[-1]) == (21, "11 more sentences like these are not listed.")
    server.stop()


def test_import_saves_all_or_nothing(server):
    def send(content, **fields):
        files = {"file": ("boxes.csv", content)}
        return server.call("POST", "/import", server.tokens["root"], files=files, data={"format": "nih", **fields})

    table = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\nchest1.png,Nodule,1,2,10,10\n"
    wrong = send(table + b"chest0.png,Nodule,1,2,900,10\n", reader="nih")
    assert (wrong.status_code, "line 3" in wrong.text) == (400, True)
    late = send(table + b"chest0.png," + 65 * b"N" + b",1,2,3,4\n", reader="nih")
    assert (late.status_code, "finding" in late.text) == (400, True)
    answer = send(table + b"chest9.png,Odd,1,2,9,1\nchest1.png,Odd,1,2,3,4\n", reader="nih").json()
    assert answer["saved"] == [{"image": "chest1.png", "reader": "nih", "number": 1}]
    assert (answer["unknown_images"], answer["unknown_findings"]) == (["chest9.png"], ["Odd"])


def test_deletion_is_an_admins_and_leaves_a_tombstone(server):
    path = "/boxes/chest1.png/nih/1"
    assert server.call("DELETE", path, server.tokens["eve"], json={"reason": "x"}).status_code == 403
    assert server.call("DELETE", path, server.tokens["root"], json={"reason": ""}).status_code == 400
    deleted = server.call("DELETE", path, server.tokens["root"], json={"reason": "the patient asked"}).json()
    assert deleted["deleted"] is True
    audit = server.get("/audit", token=server.tokens["root"])
    assert audit["problems"] == []
    assert audit["rows"][-1]["action"] == "delete"


def test_a_region_of_a_radiograph_is_the_crop_of_the_whole(server):
    def infer(**params):
        return server.call(
            "POST", "/infer/chest_xray_edsr_x4", server.tokens["ada"], data={"params": json.dumps(params)},
            params={"image": "chest0.png", "output": "image"},
        )  # fmt: skip

    whole = np.asarray(PIL.Image.open(io.BytesIO(infer().content)))
    part = np.asarray(PIL.Image.open(io.BytesIO(infer(region=[8, 16, 40, 48]).content)))
    assert whole.shape == (256, 256)
    np.testing.assert_array_equal(part, whole[64:192, 32:160])


def test_the_server_gives_the_pixels_of_the_command_line(server, studies, tmp_path):
    answer = server.call(
        "POST", "/infer/chest_xray_edsr_x4", server.tokens["ada"], params={"image": "chest1.png", "output": "image"}
    )
    enhance(studies / "chest1.png", "chest_xray_edsr_x4").save(tmp_path / "sr.png")
    served = np.asarray(PIL.Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(served, np.asarray(PIL.Image.open(tmp_path / "sr.png")))


def test_a_volume_keeps_its_geometry_and_hounsfield_units(server, studies, tmp_path):
    answer = server.call(
        "POST", "/infer/chest_ct_edsr_x4", server.tokens["ada"], params={"image": "ct.nii.gz", "output": "all"},
        data={"params": json.dumps({"slices": [1, 3]})},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    from requests_toolbelt import MultipartDecoder

    params, image = MultipartDecoder.from_response(answer).parts
    report = json.loads(params.content)
    assert report["consistency"]["unit"] == "HU"
    (tmp_path / "sr.nii.gz").write_bytes(image.content)
    source, result = nibabel.load(studies / "ct.nii.gz"), nibabel.load(tmp_path / "sr.nii.gz")
    assert result.shape == (192, 192, 2)
    np.testing.assert_allclose(result.header.get_zooms(), (0.2, 0.175, 5))
    middle = source.affine @ [10, 20, 1, 1]  # a landmark keeps its place
    np.testing.assert_allclose(result.affine @ [4 * 10 + 1.5, 4 * 20 + 1.5, 0, 1], middle, atol=1e-3)
    assert abs(float(result.get_fdata().mean()) - float(source.get_fdata()[..., 1:3].mean())) < 20


def test_error_bars_come_as_figures_and_as_a_picture(server):
    answer = server.call(
        "POST", "/infer/chest_xray_residual_flow_x4", server.tokens["ada"], params={"image": "chest1.png"},
        data={"params": json.dumps({"error_bars": True})},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    from requests_toolbelt import MultipartDecoder

    params, image = MultipartDecoder.from_response(answer).parts
    assert json.loads(params.content)["error_bars"]["mean"] > 0
    assert len(zipfile.ZipFile(io.BytesIO(image.content)).namelist()) == 2


def test_other_requests_are_answered_during_inference(server):
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(
            server.call, "POST", "/infer/chest_xray_residual_flow_x4", server.tokens["ada"],
            params={"image": "chest0.png", "output": "json"}, data={"params": json.dumps({"texture": 1.0, "steps": 8})},
        )  # fmt: skip
        answered = 0
        while not slow.done():
            server.get("/boxes/", token=server.tokens["ada"])
            answered += 1
        assert slow.result().status_code == 200, slow.result().text
    assert answered > 3


WRONG = [
    ("unknown image", "PUT", "/boxes/missing.png", {"json": document(image="missing.png")}, 404, "no such image"),
    ("outside", "PUT", "/boxes/chest0.png", {"json": document(box(0, 0, 65, 5))}, 400, "outside its image"),
    ("zero area", "PUT", "/boxes/chest0.png", {"json": document(box(5, 5, 5, 9))}, 400, "empty"),
    ("another schema", "PUT", "/boxes/chest0.png", {"json": {"schema": "2", "readings": []}}, 400, "sr-boxes/1"),
    ("two readings", "PUT", "/boxes/chest0.png", {"json": {"schema": "sr-boxes/1", "readings": []}}, 400, "0 readings"),
    ("another image", "PUT", "/boxes/chest0.png", {"json": document(image="chest1.png")}, 400, "another name"),
    ("another content", "PUT", "/boxes/chest0.png", {"json": of_content("0" * 64)}, 400, "another SHA-256"),
    ("no JSON", "PUT", "/boxes/chest0.png", {"data": b"{"}, 400, "dictionary"),
    ("a list", "PUT", "/boxes/chest0.png", {"json": []}, 400, "dictionary"),
    ("somebody else", "PUT", "/boxes/chest0.png", {"json": document(box(), reader="bob")}, 403, "only an admin"),
    ("the consensus", "PUT", "/boxes/chest0.png", {"json": document(box(), reader="consensus")}, 403, "server's own"),
    ("negative version", "PUT", "/boxes/chest0.png?based_on=-1", {"json": document()}, 400, "based_on"),
    ("traversal, boxes", "GET", "/boxes/..%2F..%2Fetc%2Fpasswd", {}, 404, ""),
    ("traversal, image", "GET", "/datastore/image?image=../outside.png", {}, 400, "pattern"),
    ("absolute image", "GET", "/datastore/image?image=/etc/passwd", {}, 400, "pattern"),
    ("hidden image", "GET", "/datastore/image?image=.hidden", {}, 400, "pattern"),
    ("not an image", "GET", "/datastore/image?image=notes.txt", {}, 404, "no such image"),
    ("traversal, tag", "PUT", "/datastore/label?image=chest0.png&tag=..", {"files": {"label": b""}}, 400, "pattern"),
    ("segmentation", "PUT", "/datastore/label?image=chest0.png", {"files": {"label": ("a.nii", b"")}}, 400, "no place"),
    ("path in params", "POST", "/infer/chest_xray_edsr_x4?image=chest0.png", {"data": {"params": '{"image": "/etc"}'}},
     400, "unknown field"),
    ("wrong params", "POST", "/infer/chest_xray_edsr_x4?image=chest0.png", {"data": {"params": '{"region": [1]}'}},
     400, "4 numbers"),
    ("params of text", "POST", "/infer/chest_xray_edsr_x4?image=chest0.png", {"data": {"params": "x"}}, 400, "no JSON"),
    ("region outside", "POST", "/infer/chest_xray_edsr_x4?image=chest0.png",
     {"data": {"params": '{"region": [0, 0, 99, 9]}'}}, 400, "does not lie in the image"),
    ("another modality", "POST", "/infer/chest_xray_edsr_x4?image=ct.nii.gz", {}, 400, "CT"),
    ("no PACS", "POST", "/infer/chest_xray_edsr_x4?image=chest0.png", {"data": {"params": '{"store": true}'}},
     404, "no PACS"),
    ("unknown bundle", "POST", "/infer/nothing?image=chest0.png", {}, 404, "no bundle"),
    ("unknown strategy", "POST", "/activelearning/nothing", {"json": {}}, 404, "no such strategy"),
    ("unknown job", "GET", "/train/nothing", {}, 404, "no such training"),
    ("unknown format", "GET", "/export?format=word", {}, 400, "no format"),
    ("weights by REST", "PUT", "/model/chest_xray_edsr_x4", {"data": b"x"}, 405, ""),
    ("MONAI Label's own", "POST", "/reload", {}, 404, ""),
    ("MONAI Label's logs", "GET", "/logs/", {}, 404, ""),
    ("MONAI Label's proxy", "GET", "/proxy/dicom/x", {}, 404, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "words"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_wrong_requests_have_a_reason_and_save_nothing(server, method, path, options, status, words):
    before = server.get("/audit", token=server.tokens["root"])["rows"]
    answer = server.call(method, path, server.tokens["ada"], **options)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert str(server.store.parent) not in answer.text
    assert server.get("/audit", token=server.tokens["root"])["rows"] == before


NEEDED_ROLES = [
    ("adjudicator", "GET", "/boxes/chest0.png/agreement", {}),
    ("adjudicator", "POST", "/boxes/chest0.png/consensus", {}),
    ("adjudicator", "PUT", "/boxes/chest0.png/adjudication", {"json": document()}),
    ("adjudicator", "GET", "/datastore/label?label=chest0.png&tag=final", {}),
    ("admin", "DELETE", "/boxes/chest0.png/ada/1", {"json": {"reason": "x"}}),
    ("admin", "GET", "/audit", {}),
    ("admin", "PUT", "/findings", {"json": {"findings": []}}),
    ("admin", "GET", "/export?format=json&names=true", {}),
    ("admin", "POST", "/export/pacs", {}),
    ("admin", "POST", "/import", {"files": {"file": b""}, "data": {"format": "nih"}}),
    ("admin", "POST", "/import/pacs", {}),
    ("admin", "PUT", "/activelearning/readers", {"json": {"readers": 2}}),
    ("admin", "POST", "/activelearning/error_bars/measure", {"json": {"model": "chest_xray_edsr_x4"}}),
    ("admin", "POST", "/train/chest_xray_edsr_x4", {"json": {}}),
    ("admin", "DELETE", "/train/", {}),
    ("admin", "DELETE", "/train/nothing", {}),
    ("admin", "POST", "/model/chest_xray_edsr_x4/promote", {"json": {"job": "nothing"}}),
    ("admin", "POST", "/model/chest_xray_edsr_x4/rollback", {}),
]


@pytest.mark.parametrize(
    ("role", "method", "path", "options"), NEEDED_ROLES, ids=[" ".join(n[1:3]) for n in NEEDED_ROLES]
)
def test_a_role_below_is_refused(server, role, method, path, options):
    below = {"adjudicator": "ada", "admin": "eve"}[role]
    answer = server.call(method, path, server.tokens[below], **options)
    assert (answer.status_code, f"needs the role {role}" in answer.text) == (403, True), answer.text


def test_an_admin_may_not_ask_for_the_impossible_either(server):
    def send(method, path, **options):
        answer = server.call(method, path, server.tokens["root"], **options)
        return answer.status_code, answer.json()["error"]

    assert send("POST", "/train/chest_xray_edsr_x4", json={"iterations": 0})[0] == 400
    assert send("POST", "/train/chest_xray_edsr_x4", json={"weights": "x"})[0] == 400
    assert "expected at least 1 of each" in send("POST", "/train/chest_xray_edsr_x4", json={})[1]
    assert send("POST", "/model/chest_xray_edsr_x4/rollback")[0] == 409
    assert send("POST", "/model/chest_xray_edsr_x4/promote", json={"job": "nothing"})[0] == 404
    assert send("POST", "/import/pacs")[0] == 404
    assert send("DELETE", "/boxes/chest0.png/nobody/1", json={"reason": "x"})[0] == 404
    assert send("POST", "/boxes/chest0.png/consensus?iou=1")[0] == 400
    assert send("PUT", "/activelearning/readers", json={"readers": 0})[0] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic cm9vdDpyb290"}, 401),
        ({"Origin": "https://elsewhere.example"}, 403),
    ],
)
def test_nobody_comes_in_without_a_token_or_from_a_page(server, headers, status):
    for path in ("/", "/info/", "/boxes/", "/datastore/", "/openapi.json"):
        assert requests.get(f"{server.url}{path}", headers=headers, timeout=60).status_code == status


def test_a_browser_lets_an_allowed_page_read_the_answers_and_no_other(serve, studies, tmp_path, monkeypatch):
    viewer, other = "https://viewer.example", "https://elsewhere.example"
    monkeypatch.setenv("MONAI_LABEL_CORS_ORIGINS", json.dumps([viewer]))
    server = serve(studies, tmp_path / "store", bundles="chest_xray_edsr_x4", readers={"ada": "reader"})
    wishes = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}

    def answers(origin):
        preflight = requests.options(f"{server.url}/boxes/chest0.png", headers={"Origin": origin, **wishes}, timeout=60)
        headers = {"Origin": origin, "Authorization": f"Bearer {server.tokens['ada']}"}
        answer = requests.get(f"{server.url}/boxes/", headers=headers, timeout=60)
        allowed = [each.headers.get("Access-Control-Allow-Origin") for each in (preflight, answer)]
        return preflight.status_code, answer.status_code, allowed

    assert answers(viewer) == (200, 200, [viewer, viewer])
    assert answers(other) == (400, 403, [None, None])
    assert requests.get(f"{server.url}/boxes/", headers={"Origin": viewer}, timeout=60).status_code == 401
    server.stop()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server):
    from labelling.guard import LARGEST_BODY

    def chunks():
        for _ in range(LARGEST_BODY // 2**20 + 2):
            yield b" " * 2**20

    try:
        answer = server.call("PUT", "/boxes/chest0.png", server.tokens["ada"], data=chunks())
        assert answer.status_code == 413
    except requests.ConnectionError:  # the server hung up while the client was still sending
        pass
    # One that only says that it is large is not waited for.
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("PUT", "/boxes/chest0.png")
    connection.putheader("Authorization", f"Bearer {server.tokens['ada']}")
    connection.putheader("Content-Length", str(LARGEST_BODY + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_version_that_was_not_seen_is_not_followed(server):
    latest = max(v["number"] for v in server.get("/boxes/chest0.png/history", token=server.tokens["bob"])["versions"])
    content = document(box(1, 2, 3, 4))
    assert put(server, "bob", content, based_on=latest).status_code == 200
    assert put(server, "bob", content, based_on=latest).status_code == 200  # sent twice, after a lost answer
    assert put(server, "bob", document(box(5, 6, 7, 8)), based_on=latest).status_code == 409
    assert put(server, "bob", content, based_on=0).status_code == 409


def test_two_readers_submit_200_readings_at_once(server):
    def submit(name):
        versions = server.get("/boxes/chest1.png/history", token=server.tokens[name], params={"reader": name})[
            "versions"
        ]
        number = len(versions)
        for index in range(100):
            content = document(box(1, 2, 10 + index % 50, 40), image="chest1.png")
            answer = put(server, name, content, "chest1.png", based_on=number)
            assert answer.status_code == 200, answer.text
            number = answer.json()["number"]
        return number - len(versions)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(submit, ("ada", "bob"))) == [100, 100]
    assert server.get("/audit", token=server.tokens["root"])["problems"] == []


def test_the_next_image_of_each_reader(server):
    def ask(name, strategy="random"):
        return server.call("POST", f"/activelearning/{strategy}", server.tokens[name], json={}).json()

    server.call("PUT", "/activelearning/readers", server.tokens["root"], json={"readers": 2})
    first, second = ask("eve"), ask("eve")
    assert first["left"] == second["left"]
    assert (first["id"] != second["id"]) == (first["left"] > 1)
    done = {
        name
        for name, of_image in server.get("/boxes/", token=server.tokens["eve"])["images"].items()
        if len(of_image) > 1
    }
    assert not done & {first["id"], second["id"]}
    assert server.call("POST", "/activelearning/error_bars", server.tokens["eve"], json={}).status_code == 409


def test_the_image_with_the_widest_error_bars_is_next(server):
    request = {"model": "chest_xray_residual_flow_x4", "images": ["chest0.png", "chest1.png", "ct.nii.gz"]}
    path = "/activelearning/error_bars"
    assert server.call("POST", f"{path}/measure", server.tokens["ada"], json=request).status_code == 403
    assert server.call("POST", f"{path}/measure", server.tokens["root"], json=request).status_code == 202

    def measured():
        content = server.get(f"{path}/widths", token=server.tokens["root"])
        return None if content["running"] else content["images"]

    widths = {name: each["width"] for name, each in wait_for(measured, 300).items()}
    assert widths.pop("ct.nii.gz") is None  # of another modality
    server.call("PUT", "/activelearning/readers", server.tokens["root"], json={"readers": 9})
    chosen = [server.call("POST", path, server.tokens["root"], json={}).json()["id"] for _ in widths]
    assert chosen == sorted(widths, key=widths.get, reverse=True)


def test_findings_may_be_limited_to_a_list(server):
    def send(finding):
        submission = document(box(1, 2, 3, 4, finding=finding), image="ct.nii.gz")
        submission["readings"][0]["boxes"][0]["slice_index"] = 0
        return put(server, "eve", submission, "ct.nii.gz")

    path, root = "/findings", server.tokens["root"]
    assert server.call("PUT", path, root, json={"findings": ["Nodule", "Mass"]}).json() == {
        "findings": ["Nodule", "Mass"]
    }
    assert (send("Odd").status_code, "none of this server's" in send("Odd").text) == (400, True)
    answer = send("Mass")
    assert answer.json()["readings"][0]["boxes"][0]["codes"][0]["value"] == "4147007"

    def submit(finding):  # as Slicer does
        point = {"label": finding, "position": [20, 40, 0]}
        markup = {"type": "ROI", "center": [20, 40, 0], "size": [10, 20, 1], "controlPoints": [point]}
        files = {"label": ("boxes.json", json.dumps({"markups": [markup]}))}
        return server.call("PUT", "/datastore/label", root, params={"image": "chest1.png"}, files=files)

    assert (submit("Odd").status_code, "none of this server's" in submit("Odd").text) == (400, True)
    assert submit("Mass").status_code == 200
    server.send("PUT", path, root, json={"findings": ["Pleural effusion"]})
    assert submit("Pleural effusion").status_code == 200  # which comes back as Effusion
    assert send("Effusion").status_code == 409  # as it follows no version, and not for its name
    assert server.call("PUT", path, root, json={"findings": []}).json() == {"findings": []}
