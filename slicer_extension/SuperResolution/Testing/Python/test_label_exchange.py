"""Boxes to and from a real labelling server, by this extension and by MONAI Label's own module for Slicer.

SUPERRESOLUTION_LABEL_PYTHON names a Python that has what `monai-sr label` needs; `make test-label` makes one.
"""

import functools
import json
import os
import subprocess
import types
import urllib.request
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import slicer
from box_lists import assertSameBoxes, boxesOn, removeBoxes
from SuperResolutionLib import box_nodes, region, volumes
from SuperResolutionLib.box import FindingCode
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.label_client import LabelClient
from SuperResolutionLib.label_exchange import FetchBoxes, SendBoxes, contentOf, isUnsent
from waiting import waitFor

READERS = {"ada": "reader", "bob": "reader", "sue": "reader", "pc-7": "reader", "eve": "adjudicator"}
NEAR = 0.5  # largest distance in pixels between an edge that was sent and the one that comes back


@pytest.fixture(scope="session")
def volumeFile(studies):
    """A turned volume that is no DICOM, with left-handed axes: Slicer reverses the order of its slices."""
    turn = np.array([[0, -0.8, 0, 5], [-0.9, 0, 0, -7], [0, 0, 2.5, 9], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.full((11, 9, 4), -900, np.int16), turn), studies / "volume.nii.gz")
    return studies / "volume.nii.gz"


@pytest.fixture(scope="session")
def server(studies, databases, volumeFile, repository, tmp_path_factory):
    """A server of these images. It has `url`, `tokens` by reader, and `python`, which runs it."""
    python = os.environ.get("SUPERRESOLUTION_LABEL_PYTHON")
    if not python:
        pytest.skip("BOXES OF SLICER'S PANEL ON THE LABELLING SERVER: `make test-label` runs these tests")
    script, store = repository / "monailabel_app" / "tests" / "serve_to_slicer.py", tmp_path_factory.mktemp("server")
    command = [python, script, studies, store / "store", *(f"{name}:{role}" for name, role in READERS.items())]
    environment, pipe = {**os.environ, "PYTHONPATH": str(repository)}, subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        line = process.stdout.readline()
        assert line, "the server has not started"
        yield types.SimpleNamespace(python=python, **json.loads(line))
        process.stdin.close()


@pytest.fixture(params=["CR", "DX", "CT", "volume"])
def image(request, application, loadDicom, volumeFile):
    return application.loadVolume(volumeFile, "CT") if request.param == "volume" else loadDicom(request.param)


@pytest.fixture
def film(loadDicom):
    return loadDicom("CR")


class Reader:
    """A reader with an image, who has fetched its newest boxes and removed them."""

    def __init__(self, server, name, volume, token=None):
        self.client = LabelClient(server.url, server.tokens[token or name])
        self.name, self.volume = name, volume
        self.fetch()
        removeBoxes(volume)

    def draw(self, edges, slices=(0, 1), finding="Nodule"):
        x0, y0, x1, y1 = edges
        return box_nodes.addBox(self.volume, [*slices, y0, y1, x0, x1], finding, self.name, 0.5)

    def send(self, isDraft=False):
        return self._exchange(SendBoxes(self.client, self.volume, self.name, isDraft))

    def fetch(self, meanwhile=lambda: None):
        exchange = FetchBoxes(self.client, self.volume, self.name)
        meanwhile()
        return self._exchange(exchange)

    def _exchange(self, exchange):
        waitFor(lambda: not exchange.step(), what="the answer of the server")
        return exchange.message or exchange.summary

    @property
    def findings(self):
        return [words[0] for words, *_ in boxesOn(self.volume)]


@pytest.fixture
def reader(server):
    """Makes a reader: ``reader("ada", volume)``."""
    return functools.partial(Reader, server)


def test_boxes_of_every_image_come_back_at_the_same_place_also_under_a_transform(image, reader, application):
    ada = reader("ada", image)
    slices = volumes.shapeOf(image)[0]
    ada.draw([1.25, 2.5, 6.75, 7.125])
    ada.draw([2, 3, 5, 4.5], (max(slices - 3, 0), slices), "Mass")
    boxes = boxesOn(image)
    assert ada.send(isDraft=True) == "Version 1 is on the server, a draft. Boxes: 2."
    assert ada.send() == "Version 2 is on the server, submitted. Boxes: 2."
    turn = np.array([[0, -1, 0, 12], [1, 0, 0, -4], [0, 0, 1, 3], [0, 0, 0, 1.0]])
    for matrix in (np.eye(4), turn):
        application.move(image, matrix)
        removeBoxes(image)
        assert ada.fetch() == "Version 2 is on the server, submitted. Boxes: 2."
        assertSameBoxes(boxesOn(image), boxes, NEAR)
    assert ada.send() == "Version 2 is on the server, submitted. Boxes: 2."  # the same boxes are no new version


def test_what_was_sent_from_elsewhere_is_neither_overwritten_nor_lost(film, reader, loadDicom):
    ada = reader("ada", film)
    ada.draw([1, 2, 9, 8])
    ada.send()
    ada.volume = loadDicom("CR")  # the same image, in another scene
    ada.draw([20, 21, 30, 31], finding="Mass")
    assert isUnsent(ada.volume, "ada")
    assert ada.send() == (
        "The server has a newer version of these boxes, which was sent from elsewhere and not fetched here. Nothing "
        "was sent. Press Fetch boxes to see them."
    )
    assert ada.findings == ["Mass"]
    ada.fetch()
    assert ada.findings == ["Nodule"]
    ada.draw([20, 21, 30, 31], finding="Mass")
    ada.send()
    ada.volume = film
    assert not isUnsent(film, "ada")
    assert ada.fetch().endswith("Boxes: 2.")
    assert ada.findings == ["Nodule", "Mass"]
    [box, _] = box_nodes.boxesOf(slicer.mrmlScene, film)
    message = ada.fetch(meanwhile=lambda: box_nodes.describe(box, "Effusion", "ada", 0.5))
    assert message == "The boxes were changed while others were fetched, and stay as they are. Fetch again."
    assert ada.findings == ["Effusion", "Mass"]


def test_an_adjudicator_alone_fetches_boxes_of_others_and_decides_on_the_consensus(film, reader):
    bob = reader("bob", film)
    bob.draw([4, 5, 14, 12])
    bob.send()
    boxes = boxesOn(film)
    message = "The token is that of the reader 'ada'. Enter this name as the reader, or another token."
    assert reader("bob", film, token="ada").fetch() == message
    reader("bob", film, token="eve").fetch()
    assertSameBoxes(boxesOn(film), boxes, NEAR)
    eve = reader("consensus", film, token="eve")
    bob.fetch()
    eve.draw([24, 25, 34, 32])
    others = "Boxes of other readers that stay here: 1. Each reader sends their own."
    assert eve.send() == f"Version 1 is on the server, submitted. Boxes: 1. {others}"
    removeBoxes(film)
    eve.fetch()
    [((_, name, _), _, bounds)] = boxesOn(film)
    assert name == "consensus"
    np.testing.assert_allclose(bounds[2:], [25, 32, 24, 34], atol=NEAR)


def test_codes_and_what_was_seen_stay_with_the_next_version(film, reader):
    ada = reader("ada", film)
    ada.draw([1, 1, 7, 7], finding="Odd shadow")
    ada.send()
    name = ada.client.find(film.GetAttribute(volumes.UIDS))["id"]
    number, reading = ada.client.newest(name, "ada")
    coded = replace(reading.boxes[0], codes=(FindingCode("RID39066", "RADLEX", "shadow"),))
    ada.client.save(replace(reading, boxes=(coded,), saw_enhanced=True), number)
    ada.fetch()
    ada.draw([9, 9, 12, 12], finding="Mass")
    ada.send()
    _, back = ada.client.newest(name, "ada")
    codes = {each.finding: [code.value for code in each.codes] for each in back.boxes}
    assert codes == {"Odd shadow": ["RID39066"], "Mass": ["4147007"]}
    assert back.saw_enhanced is True


def test_an_image_that_is_not_that_of_the_server_is_neither_sent_nor_fetched(film, reader, application):
    ada, uid = reader("ada", film), film.GetAttribute(volumes.UIDS)
    assert ada.fetch(meanwhile=lambda: slicer.mrmlScene.RemoveNode(film)) == "The volume was removed in the meantime."
    ada.volume = application.addVolume(np.zeros((1, 47, 40), np.int16), name="crop", modality="CR")
    with pytest.raises(InputError, match="'crop' was not loaded from a file, so no server knows it."):
        ada.fetch()
    ada.volume.SetAttribute(volumes.UIDS, uid)
    assert ada.send() == (
        "The volume has 40 x 47 x 1 voxels, and the server's image 40 x 48 x 1 (columns x rows x slices). Load the "
        "whole image, as it is."
    )
    ada.name = " "
    with pytest.raises(InputError, match="Enter the reader first"):
        ada.send()


def test_the_panel_asks_before_boxes_are_replaced_or_none_are_sent_and_forgets_the_token(panel, film, server):
    ui, widget = panel.ui, panel.widget
    panel.chosen.inputVolume = film
    ui.serverLineEdit.text, ui.readerLineEdit.text, ui.tokenLineEdit.text = server.url, "sue", server.tokens["sue"]
    panel.settle()

    def press(button, answer):
        slicer.app.asked, slicer.app.answer = [], answer
        button.click()
        slicer.app.answer = True
        panel.until(lambda: not widget._jobs, "the answer of the server")
        panel.settle()
        return slicer.app.asked

    question = "You have drawn no box on this image. Submit that there is no finding?"
    assert press(ui.sendBoxesButton, answer=False) == [question]
    assert press(ui.fetchBoxesButton, answer=True) == []
    assert ui.serverLabel.text == "The server has no boxes of 'sue' on this image."
    assert press(ui.sendBoxesButton, answer=True) == [question]
    assert ui.serverLabel.text == "Version 1 is on the server, submitted. Boxes: 0."
    widget.addBox([0, 1, 4, 9, 5, 8])
    panel.settle()
    question = "The boxes of this reader were changed and not sent. Replace them by those of the server?"
    for answer, count in ((False, 1), (True, 0)):
        assert press(ui.fetchBoxesButton, answer) == [question]
        assert len(boxesOn(film)) == count
    settings = slicer.app.userSettings()
    values = {settings.value(key) for key in settings.allKeys()}
    settings.clear()  # other tests begin without a reader
    assert values >= {server.url, "sue"}
    nodes = [slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes())]
    assert server.tokens["sue"] not in "".join(map(str, [*values, *nodes]))


def test_boxes_of_monai_labels_module_come_to_the_same_place(image, server, reader, application, tmp_path, monkeypatch):
    """The requests of its client in the order of its module: download and submit."""
    plugin = Path(server.python).parents[1] / "monailabel" / "plugins" / "slicer" / "MONAILabel"
    monkeypatch.syspath_prepend(plugin / "MONAILabelLib")
    from client import MONAILabelClient

    client = MONAILabelClient(server.url, client_id="pc-7")
    client.update_auth(client.auth_token("pc-7", server.tokens["pc-7"]))
    us, file, boxesFile = reader("pc-7", image), tmp_path / "image.nii.gz", str(tmp_path / "boxes.json")
    name = us.client.find(**contentOf(image))["id"]
    authorization = {"Authorization": f"Bearer {server.tokens['pc-7']}"}
    request = urllib.request.Request(f"{server.url}/datastore/image?image={name}", headers=authorization)
    with urllib.request.urlopen(request) as answer:
        file.write_bytes(answer.read())
    download = application.loadVolume(file, "CT")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Pleural effusion")
    region.placeBox(node, download, [0, min(2, volumes.shapeOf(download)[0]), 2.25, 6.5, 1.5, 7])
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROIJsonStorageNode")
    storage.SetFileName(boxesFile)
    assert storage.WriteData(node)
    client.save_label(name, boxesFile, params={"label_info": []})
    assert us.fetch().startswith("Version 1 is on the server")
    low, high = np.reshape(box_nodes.boundsIn(node, image), (3, 2)).T
    bounds = np.array([bounds for *_, bounds in boxesOn(image)])
    np.testing.assert_allclose(bounds[:, ::2].min(axis=0), low, atol=NEAR)
    np.testing.assert_allclose(bounds[:, 1::2].max(axis=0), high, atol=NEAR)
