"""The client of our module for Slicer against a real server: what its panel sends, without Slicer and without Qt."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from monai_sr_bundle.datasets.phantom import draw_phantom
from processes import ROOT, free_port
from SuperResolutionLib import label_client
from SuperResolutionLib.box import Box
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.label_client import LabelClient
from SuperResolutionLib.readings import ImageIdentity, Reader, Reading, Tool

from tests.images.dicom_files import ct_series, phantom, radiograph

LIBRARY = ROOT / "slicer_extension" / "SuperResolution"
FILMS = {"CR": "2.25.501", "DX": "2.25.502"}
NODULE = Box("Nodule", 3.25, 4.5, 9.125, 11.0, certainty=0.8, tracking_uid="2.25.7")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A CR, a DX, a CT of five slices, a picture and a volume."""
    folder = tmp_path_factory.mktemp("studies")
    for modality, uid in FILMS.items():
        radiograph(
            folder / f"Doe^Jane {modality}.dcm", phantom(dtype="uint16")[0], modality, SOPInstanceUID=uid,
            StudyInstanceUID=f"{uid}.1", SeriesInstanceUID=f"{uid}.2",
        )  # fmt: skip
    ct_series(folder / "ct", phantom(slices=5))
    PIL.Image.fromarray(np.rint(draw_phantom(64, seed=3) * 255).astype(np.uint8)).save(folder / "chest.png")
    volume = nibabel.Nifti1Image(np.full((6, 5, 4), -900, np.int16), np.diag([-1, 1, 2, 1.0]))
    nibabel.save(volume, folder / "v.nii.gz")
    return folder


@pytest.fixture
def client(server):
    """Makes the client of a reader: ``client("ada")``."""
    return lambda name: LabelClient(server.url + "/", server.tokens[name])


def reading(image, *boxes, reader="ada", status="submitted", **fields):
    identity = ImageIdentity(image["id"], image["sha256"], columns=image["columns"], rows=image["rows"])
    fields = {"no_finding": status == "submitted" and not boxes, "tool": Tool("3D Slicer"), **fields}
    return Reading(identity, Reader(reader), boxes, status, **fields)


def test_an_image_is_found_by_its_content_and_never_by_its_name(client, studies, tmp_path):
    ada = client("ada")
    for uid in FILMS.values():
        assert (ada.find(uid)["columns"], ada.find(uid)["slices"]) == (20, 1)
    slices = [ada.find(f"2.25.1002.{number}") for number in range(1, 6)]
    assert all(each == slices[0] for each in slices)
    assert (slices[0]["id"], slices[0]["slices"]) == ("ct", 5)
    for name, size in (("chest.png", (64, 64, 1)), ("v.nii.gz", (6, 5, 4))):
        copy = tmp_path / f"another name{''.join(Path(name).suffixes)}"
        copy.write_bytes((studies / name).read_bytes())
        image = ada.find(file=str(copy))
        assert (image["id"], image["columns"], image["rows"], image["slices"]) == (name, *size)
        assert image["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
    film = next(studies.glob("*CR.dcm"))  # loaded without the DICOM module, it is a file like any other
    assert ada.find(file=str(film))["id"] == ada.find(FILMS["CR"])["id"]


def test_what_the_server_does_not_have_is_told(client, studies, tmp_path):
    ada = client("ada")
    with pytest.raises(InputError, match=r"does not have this image.*no image with that SOP Instance UID"):
        ada.find("2.25.999")
    changed = tmp_path / "chest.png"
    changed.write_bytes((studies / "chest.png").read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match="no image that is a file of that content"):
        ada.find(file=str(changed))
    with pytest.raises(InputError, match="cannot be read"):
        ada.find(file=str(tmp_path / "gone.png"))


@pytest.mark.parametrize("uid", [*FILMS.values(), "2.25.1002.3"])
def test_boxes_are_sent_and_come_back_as_they_were(client, uid):
    ada = client("ada")
    image = ada.find(uid)
    box = Box(**{**vars(NODULE), "sop_instance_uid": uid})
    assert ada.newest(image["id"], "ada") == (0, None)
    draft = ada.save(reading(image, box, status="draft", saw_enhanced=True), 0)
    assert draft == 1
    assert ada.save(reading(image, box, status="draft", saw_enhanced=True), 0) == 1  # after a lost answer
    submitted = ada.save(reading(image, box), 1)
    number, back = ada.newest(image["id"], "ada")
    assert (submitted, number, back.status) == (2, 2, "submitted")
    (returned,) = back.boxes
    assert returned.xyxy == box.xyxy
    assert (returned.finding, returned.certainty, returned.sop_instance_uid) == ("Nodule", 0.8, uid)
    assert returned.codes[0].value == "27925004"
    nothing = ada.save(reading(image), 2)
    assert ada.newest(image["id"], "ada")[1].no_finding
    assert nothing == 3
    assert client("bob").newest(image["id"], "ada") == (0, None)  # unseen


def test_nothing_is_overwritten_that_was_not_seen(client):
    ada, image = client("ada"), client("ada").find(FILMS["CR"])
    number, _ = ada.newest(image["id"], "ada")
    ada.save(reading(image, NODULE), number)
    with pytest.raises(InputError, match="The server has a newer version of these boxes, .* Nothing was sent."):
        ada.save(reading(image), number)
    assert ada.newest(image["id"], "ada")[1].boxes[0].xyxy == NODULE.xyxy


def test_a_deleted_version_is_counted_and_not_shown(client, server):
    bob, image = client("bob"), client("bob").find(FILMS["DX"])
    bob.save(reading(image, NODULE, reader="bob"), 0)
    path = f"/boxes/{image['id']}/bob/1"
    answer = server.call("DELETE", path, server.tokens["root"], json={"reason": "the patient asked"})
    assert answer.status_code == 200, answer.text
    assert bob.newest(image["id"], "bob") == (1, None)
    assert bob.save(reading(image, reader="bob"), 1) == 2


def test_the_decision_of_an_adjudicator_is_the_consensus(client):
    eve, image = client("eve"), client("eve").find(FILMS["DX"])
    assert eve.user() == ("eve", "adjudicator")
    assert eve.save(reading(image, NODULE, reader="consensus"), 0) == 1
    assert eve.newest(image["id"], "consensus")[1].boxes[0].xyxy == NODULE.xyxy
    with pytest.raises(InputError, match="This needs the role adjudicator"):
        client("ada").save(reading(image, NODULE, reader="consensus"), 1)


def test_a_name_of_a_reader_may_have_spaces(client):
    root, image = client("root"), client("root").find(FILMS["CR"])
    root.save(reading(image, NODULE, reader="A. Reader"), 0)
    assert root.newest(image["id"], "A. Reader")[0] == 1


def test_what_the_server_refuses_has_its_reason(client, server, caplog):
    ada, image = client("ada"), client("ada").find(FILMS["CR"])
    number, _ = ada.newest(image["id"], "ada")
    other = {**image, "sha256": "0" * 64}
    for expected, call in (
        ("The token is not known", lambda: LabelClient(server.url, "wrong").user()),
        ("asks for a token", lambda: LabelClient(server.url).user()),
        ("only an admin may write for others", lambda: ada.save(reading(image, reader="bob"), 0)),
        ("the reading is of another SHA-256", lambda: ada.save(reading(other), number)),
        ("no such image", lambda: ada.save(reading({**image, "id": "gone.png"}), 0)),
        ("outside its image", lambda: ada.save(reading(image, Box("Nodule", 0, 0, 21, 5)), number)),
        ("expected one", lambda: ada.save(reading(image, Box("", 0, 0, 2, 5)), number)),
    ):
        with pytest.raises(InputError, match=expected) as raised:
            call()
        assert "Jane" not in str(raised.value)
    assert ada.newest(image["id"], "ada")[0] == number
    assert "Jane" not in server.log.read_text()


def test_what_cannot_be_sent_is_told_before(client):
    image = client("ada").find(FILMS["CR"])
    with pytest.raises(InputError, match=r"The boxes cannot be sent: .*certainty is 2"):
        client("ada").save(reading(image, Box("Nodule", 1, 1, 2, 2, certainty=2)), 0)


@pytest.mark.parametrize(
    "address", ["", "here", "ftp://127.0.0.1", "http://", "http://me:secret@127.0.0.1", "http://[::1", "http://a:port"]
)
def test_an_address_that_is_none_is_told(address):
    with pytest.raises(InputError, match="The address of the server is"):
        LabelClient(address)


def test_a_token_never_crosses_the_network_in_the_open():
    with pytest.raises(InputError, match="was not sent"):
        LabelClient("http://labels.example.org", "token")
    with pytest.raises(InputError, match="token holds blanks"):
        LabelClient("https://labels.example.org", "two words")
    assert LabelClient("https://labels.example.org", "token").address == "https://labels.example.org"
    assert LabelClient("http://labels.example.org").address == "http://labels.example.org"


def test_a_server_that_is_down_is_told():
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=rf"No server runs at {address}. Start it there with `monai-sr label`"):
        LabelClient(address).user()


class Other(http.server.BaseHTTPRequestHandler):
    """Another program: what it answers is its class attribute, (status, body, headers)."""

    answer = (200, b"", {})

    def do_GET(self):
        status, body, headers = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.connection.close()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def other():
    """Starts another program that gives one answer: ``other(200, b"...")``; returns its address."""
    running = []

    def start(status=200, body=b"", headers=()):
        handler = type("Handler", (Other,), {"answer": (status, body, dict(headers))})
        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield start
    for each in running:
        each.shutdown()
        each.server_close()


def test_another_program_is_no_server(other):
    for status, body in ((200, b"<html>"), (200, b'{"name": "x"}'), (200, b"[]"), (200, b"\xff"), (500, b"Oops")):
        with pytest.raises(InputError, match="not one of a server|is no server of `monai-sr label`"):
            LabelClient(other(status, body)).user()
    moved = other(307, b"", {"Location": "http://127.0.0.1:1/"}.items())
    with pytest.raises(InputError, match="answered 307"):  # not followed: the token would go elsewhere
        LabelClient(moved, "token").user()


def test_a_server_that_is_slow_or_gone_in_the_middle_is_told(other, monkeypatch):
    image = {"id": "x", "sha256": "", "columns": 9, "rows": 9}
    with pytest.raises(InputError, match="may have been saved: send them again"):
        LabelClient(other()).save(reading(image), 0)
    monkeypatch.setattr(label_client, "TIMEOUT", 0.2)
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InputError, match=r"does not answer \(TimeoutError\)"):
            LabelClient(f"http://127.0.0.1:{silent.getsockname()[1]}").user()


def test_boxes_of_another_version_of_the_server_are_told(other):
    for versions in ([{"number": 1, "schema": "sr-boxes/9", "readings": []}], [{"number": 1}], 7, [7]):
        with pytest.raises(InputError, match="The server's boxes cannot be read"):
            LabelClient(other(200, json.dumps({"versions": versions}).encode())).newest("x", "ada")


def test_the_client_needs_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); from SuperResolutionLib import label_client\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.append({str(LIBRARY)!r})\n{code}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "['SuperResolutionLib']\n"


def test_the_log_of_the_server_names_no_patient(server):
    log = server.log.read_text()
    assert not [name for name in ("Doe", "Phantom") if name in log]  # of the files above, and in their headers
