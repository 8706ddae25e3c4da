"""Boxes to and from a real labelling server, by the panel's buttons and by MONAI Label's own module for Slicer.

SUPERRESOLUTION_LABEL_PYTHON names a Python that has what `monai-sr label` needs; `make test-label` makes one.
"""

import ast
import importlib.util
import json
import os
import subprocess
import tempfile
import types
import urllib.request
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import slicer
from box_lists import assertSameBoxes, boxesOn, removeBoxes
from opened_panel import Opened
from SuperResolutionLib import box_nodes, label_exchange, region, volumes
from SuperResolutionLib.box import FindingCode

READERS = {"ada": "reader", "bob": "reader", "pc-7": "reader", "eve": "adjudicator"}
NEAR = 0.5  # largest distance in pixels between an edge that was sent and the one that comes back


@pytest.fixture(scope="session")
def labelPython():
    python = os.environ.get("SUPERRESOLUTION_LABEL_PYTHON")
    if not python:
        pytest.skip("BOXES OF SLICER'S PANEL ON THE LABELLING SERVER: `make test-label` runs these tests")
    return python


@pytest.fixture(scope="session")
def volumeFile(studies):
    """An oblique, mirrored volume that is no DICOM."""
    axes, _ = np.linalg.qr([[0.9, -0.1, 0.2], [0.15, -0.8, 0.1], [-0.2, 0.1, 1.0]])
    turn = np.eye(4)
    turn[:3] = np.c_[axes * (0.9, 0.8, 2.5), (5, -7, 9)]
    voxels = (np.arange(11 * 9 * 4).reshape(11, 9, 4) - 1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, turn), studies / "volume.nii.gz")
    return studies / "volume.nii.gz"


@pytest.fixture(scope="session")
def server(labelPython, studies, databases, volumeFile, repository, tmp_path_factory):
    """A server of these images. It has `url`, and `tokens` by reader."""
    script, store = repository / "monailabel_app" / "tests" / "serve_to_slicer.py", tmp_path_factory.mktemp("server")
    command = [labelPython, script, studies, store / "store", *(f"{name}:{role}" for name, role in READERS.items())]
    environment, pipe = {**os.environ, "PYTHONPATH": str(repository)}, subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        line = process.stdout.readline()
        assert line, "the server has not started"
        yield types.SimpleNamespace(**json.loads(line))
        process.stdin.close()


@pytest.fixture(params=["CR", "DX", "CT", "volume"])
def image(request, application, loadDicom, volumeFile):
    return application.loadVolume(volumeFile, "CT") if request.param == "volume" else loadDicom(request.param)


@pytest.fixture
def film(loadDicom):
    return loadDicom("CR")


class Reader:
    """A reader at the panel, who has seen the newest boxes of an image and begins without any."""

    def __init__(self, panel, server, name, volume):
        self.panel, self.server, self.ui = panel, server, panel.ui
        panel.ui.serverLineEdit.text = server.url
        self.become(name)
        self.open(volume)
        self.fetch()
        self.removeAll()

    def become(self, name, token=None):
        self.ui.readerLineEdit.text = name
        self.ui.tokenLineEdit.text = self.server.tokens[token or name]

    def open(self, volume):
        self.panel.chosen.inputVolume = volume
        self.panel.settle()

    def draw(self, edges, slices=(0, 1), finding="Nodule"):
        """Draw a box and name it in the table, as a user does."""
        x0, y0, x1, y1 = edges
        self.panel.widget.addBox([*slices, y0, y1, x0, x1])
        self.panel.settle()
        row = len(self.nodes) - 1
        self.ui.boxesTable.item(row, 0).setText(finding)
        self.panel.settle()
        return self.nodes[row]

    def press(self, button):
        button.click()
        return self.wait()

    def wait(self):
        self.panel.until(lambda: self.panel.widget._exchange is None, "the answer of the server")
        self.panel.settle()
        return self.ui.serverLabel.text

    def refuse(self, button):
        """Press a button and answer its question with no. Return the question."""
        slicer.app.asked, slicer.app.answer = [], False
        button.click()
        slicer.app.answer = True
        (question,) = slicer.app.asked
        return question

    def send(self, draft=False):
        self.ui.draftCheckBox.checked = draft
        return self.press(self.ui.sendBoxesButton)

    def fetch(self):
        return self.press(self.ui.fetchBoxesButton)

    @property
    def nodes(self):
        return box_nodes.boxesOf(slicer.mrmlScene, self.panel.chosen.inputVolume)

    @property
    def boxes(self):
        return boxesOn(self.panel.chosen.inputVolume)

    @property
    def findings(self):
        return [words[0] for words, *_ in self.boxes]

    def removeAll(self):
        removeBoxes(self.panel.chosen.inputVolume)
        self.panel.settle()


@pytest.fixture
def reader(panel, server):
    """Sits a reader at the panel: ``reader("ada", volume)``."""
    yield lambda name, volume: Reader(panel, server, name, volume)
    slicer.app.userSettings().clear()  # the panel keeps the reader, and other tests begin without one


def test_boxes_of_every_image_come_back_at_the_same_place_also_under_a_transform(image, reader, application):
    ada = reader("ada", image)
    slices = image.GetImageData().GetDimensions()[2]
    ada.draw([1.25, 2.5, 6.75, 7.125], (0, 1))
    ada.draw([2, 3, 5, 4.5], (max(slices - 3, 0), slices), "Mass")
    boxes = ada.boxes
    assert ada.send(draft=True) == "Version 1 is on the server, a draft. Boxes: 2."
    assert ada.send() == "Version 2 is on the server, submitted. Boxes: 2."
    ada.removeAll()
    assert ada.fetch() == "Version 2 is on the server, submitted. Boxes: 2."
    assertSameBoxes(ada.boxes, boxes, NEAR)
    turn = np.array([[0, -1, 0, 12], [1, 0, 0, -4], [0, 0, 1, 3], [0, 0, 0, 1.0]])
    application.move(image, turn)
    ada.removeAll()
    ada.fetch()
    assertSameBoxes(ada.boxes, boxes, NEAR)
    # The same boxes sent once more are no new version.
    assert ada.send() == "Version 2 is on the server, submitted. Boxes: 2."


def test_what_was_sent_from_elsewhere_is_neither_overwritten_nor_lost(film, reader, loadDicom):
    ada = reader("ada", film)
    first = ada.draw([1, 2, 9, 8])
    version = int(ada.send().split()[1])
    ada.open(loadDicom("CR"))  # the same image, in another scene
    ada.draw([20, 21, 30, 31], finding="Mass")
    assert ada.send() == (
        "The server has a newer version of these boxes, which was sent from elsewhere and not fetched here. Nothing "
        "was sent. Press Fetch boxes to see them."
    )
    question = "The boxes of this reader were changed and not sent. Replace them by those of the server?"
    assert ada.refuse(ada.ui.fetchBoxesButton) == question
    assert ada.findings == ["Mass"]
    ada.fetch()
    assert ada.findings == ["Nodule"]
    ada.draw([20, 21, 30, 31], finding="Mass")
    assert ada.send() == f"Version {version + 1} is on the server, submitted. Boxes: 2."
    ada.open(film)
    slicer.app.asked.clear()
    assert ada.fetch() == f"Version {version + 1} is on the server, submitted. Boxes: 2."
    assert slicer.app.asked == []  # nothing here was unsent
    assert first.GetScene() is None


def test_boxes_that_change_while_others_are_fetched_stay(film, reader):
    ada = reader("ada", film)
    ada.draw([3, 3, 9, 9])
    ada.send()
    with ada.panel.worker.silent():
        ada.ui.fetchBoxesButton.click()
        box_nodes.describe(ada.nodes[0], "Mass", "ada", 0.5)
    assert ada.wait() == "The boxes were changed while others were fetched, and stay as they are. Fetch again."
    assert ada.findings == ["Mass"]


def test_no_box_is_submitted_as_no_finding_and_only_when_it_is_meant(film, reader):
    eve = reader("eve", film)
    question = "You have drawn no box on this image. Submit that there is no finding?"
    assert eve.refuse(eve.ui.sendBoxesButton) == question
    assert eve.fetch() == "The server has no boxes of 'eve' on this image."
    assert eve.send() == "Version 1 is on the server, submitted: no finding."
    assert eve.fetch() == "Version 1 is on the server, submitted: no finding."


def test_an_adjudicator_sees_readers_and_decides_on_the_consensus(film, reader):
    bob = reader("bob", film)
    bob.draw([4, 5, 14, 12])
    bob.send()
    boxes = bob.boxes
    eve = reader("eve", film)
    eve.become("bob", token="eve")
    eve.fetch()
    assertSameBoxes(eve.boxes, boxes, NEAR)
    assert eve.send().startswith("The server does not allow it: ")
    eve.become("consensus", token="eve")
    eve.draw([4, 5, 14, 12])
    assert eve.send() == (
        "Version 1 is on the server, submitted. Boxes: 1. Boxes of other readers that stay here: 1. Each reader sends "
        "their own."
    )
    eve.removeAll()
    eve.fetch()
    [((_, name, _), _, bounds)] = eve.boxes
    assert name == "consensus"
    np.testing.assert_allclose(bounds, boxes[0][2], atol=NEAR)


def test_a_reader_neither_sees_nor_sends_for_others(film, reader):
    ada = reader("ada", film)
    ada.become("bob", token="ada")
    for press in (ada.send, ada.fetch):
        assert press() == "The token is that of the reader 'ada'. Enter this name as the reader, or another token."
        assert ada.boxes == []


def test_codes_and_what_was_seen_stay_with_the_next_version(film, reader, server, application):
    ada = reader("ada", film)
    ada.draw([1, 1, 7, 7], finding="Odd shadow")
    ada.send()
    client = label_exchange.LabelClient(server.url, server.tokens["ada"])
    name = client.find(film.GetAttribute(volumes.UIDS))["id"]
    number, reading = client.newest(name, "ada")
    assert reading.saw_enhanced is False
    coded = replace(reading.boxes[0], codes=(FindingCode("RID39066", "RADLEX", "shadow"),))
    client.save(replace(reading, boxes=(coded,), saw_enhanced=True), number)
    ada.fetch()
    ada.draw([9, 9, 12, 12], finding="Mass")
    ada.send()
    _, back = client.newest(name, "ada")
    codes = {each.finding: [code.value for code in each.codes] for each in back.boxes}
    assert codes == {"Odd shadow": ["RID39066"], "Mass": ["4147007"]}
    assert back.saw_enhanced is True


def test_what_cannot_be_is_told_in_words(film, reader, application, loadDicom, monkeypatch):
    ada = reader("ada", film)
    ada.ui.readerLineEdit.text = " "
    assert ada.fetch().startswith("Enter the reader first")
    ada.become("ada")
    ada.ui.tokenLineEdit.text = "wrong"  # other answers of the client: monailabel_app/tests/test_slicer_client.py
    assert ada.fetch().startswith("The server refuses this user: The token is not known.")
    ada.become("ada")
    crop = application.addVolume(slicer.util.arrayFromVolume(film)[:, 1:], name="crop", modality="CR")
    ada.open(crop)
    assert ada.fetch().startswith("'crop' was not loaded from a file, so no server knows it.")
    crop.SetAttribute(volumes.UIDS, film.GetAttribute(volumes.UIDS))
    assert ada.fetch() == (
        "The volume has 40 x 47 x 1 voxels, and the server's image 40 x 48 x 1 (columns x rows x slices). Load the "
        "whole image, as it is."
    )
    ada.open(film)
    node = ada.draw([1, 1, 5, 5])
    node.SetCenter(5000, 0, 0)
    ada.panel.settle()
    assert ada.send().startswith("The box 'Nodule' lies outside")
    ada.ui.fetchBoxesButton.click()
    slicer.mrmlScene.RemoveNode(film)
    assert ada.wait() == "The volume was removed in the meantime."
    ada.open(loadDicom("CT"))
    monkeypatch.delattr(slicer, "dicomDatabase")
    assert ada.fetch() == "Slicer has no DICOM database open. Open the DICOM module once, and try again."


def test_address_and_reader_are_kept_and_the_token_is_not(film, reader, server, module, worker):
    ada = reader("ada", film)
    settings = slicer.app.userSettings()
    assert server.url in map(settings.value, settings.allKeys())
    assert server.tokens["ada"] not in map(settings.value, settings.allKeys())
    scene = [slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes())]
    assert server.tokens["ada"] not in "".join(map(str, scene))
    ada.panel.chosen.reader = ""
    reopened = Opened(module, worker)
    assert (reopened.ui.serverLineEdit.text, reopened.ui.readerLineEdit.text) == (server.url, "ada")
    assert reopened.ui.tokenLineEdit.text == ""
    reopened.close()


def test_a_panel_that_is_closed_in_the_middle_leaves_the_scene(film, reader, application):
    ada = reader("ada", film)
    before = application.nodeIds()
    ada.ui.fetchBoxesButton.click()
    ada.panel.widget.cleanup()
    assert application.nodeIds() == before


# MONAI Label's own module.


@pytest.fixture
def stock(server, labelPython, tmp_path, monkeypatch):
    """The code of MONAI Label's module for Slicer, from its wheel: its client, and how it writes boxes."""
    monkeypatch.setattr(slicer.util, "saveNode", saveNode, raising=False)
    folder = Path(labelPython).parents[1] / "monailabel" / "plugins" / "slicer" / "MONAILabel"
    spec = importlib.util.spec_from_file_location("monailabel_client", folder / "MONAILabelLib" / "client.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    tree = ast.parse((folder / "MONAILabel.py").read_text(encoding="utf-8"))
    (method,) = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "onGenerateJSONFromMulipltROIs"
    ]  # fmt: skip
    names = {"slicer": slicer, "json": json, "tempfile": tempfile}
    exec(compile(ast.Module([method], []), "MONAILabel.py", "exec"), names)
    widget = types.SimpleNamespace(tmpdir=str(tmp_path))
    connection = client.MONAILabelClient(server.url, client_id="pc-7")
    connection.update_auth(connection.auth_token("pc-7", server.tokens["pc-7"]))
    return connection, lambda: names[method.name](widget)


def saveNode(node, path):
    """slicer.util.saveNode without the application: what its writer of markups does."""
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(path)
    assert storage.WriteData(node)


def test_boxes_go_to_monai_labels_module_and_come_from_it_in_the_same_place(
    image, server, stock, reader, application, tmp_path
):
    """Its requests in its order: download, submit. Our panel fetches the boxes on the image of its own."""
    connection, writeBoxes = stock
    token, file = server.tokens["pc-7"], tmp_path / "image.nii.gz"
    name = label_exchange.LabelClient(server.url, token).find(**label_exchange._contentOf(image))["id"]
    request = urllib.request.Request(f"{server.url}/datastore/image?image={name}")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request) as answer:
        file.write_bytes(answer.read())
    download = application.loadVolume(file, "CT")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Pleural effusion")
    region.placeBox(node, download, [0, min(2, volumes.shapeOf(download)[0]), 2.25, 6.5, 1.5, 7])
    path, labels = writeBoxes()
    saved = connection.save_label(name, path, params={"label_info": labels})
    assert (saved["reader"], saved["number"], saved["unknown_findings"]) == ("pc-7", 1, [])
    low, high = np.reshape(box_nodes.boundsIn(node, image), (3, 2)).T
    slicer.mrmlScene.RemoveNode(node)  # its Next sample closes the scene
    us = reader("pc-7", image)
    assert us.fetch().startswith("Version 1 is on the server")
    bounds = np.array([bounds for *_, bounds in us.boxes])
    np.testing.assert_allclose(bounds[:, ::2].min(axis=0), low, atol=NEAR)
    np.testing.assert_allclose(bounds[:, 1::2].max(axis=0), high, atol=NEAR)
    assert set(us.findings) == {"Effusion"}  # as this project names it
    us.removeAll()
    us.draw([3, 2, 8, 6.5])
    assert us.send() == "Version 2 is on the server, submitted. Boxes: 1."
    file, figures = connection.infer("boxes", name, {})
    assert figures["boxes"] == 1
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    box = storage.AddNewMarkupsNodeFromFile(file, None, 0)
    np.testing.assert_allclose(box_nodes.boundsIn(box, image), us.boxes[0][2], atol=NEAR)
