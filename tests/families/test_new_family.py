"""A new family is one file: put into `families/`, its bundles run through every interface."""

import io
import json
import sys
from pathlib import Path

import monai_sr_bundle.families
import numpy as np
import pytest
import torch
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.engine.session import EnhanceOptions, Session
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import ModelFamily
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.worker.messages import Events
from monai_sr_bundle.worker.server import Worker
from PIL import Image as Picture

from tests.changed_bundles import copied, with_facts

FILE = '''
"""Repeated pixels, mixed with what a network makes of them."""

import numpy as np

from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import InPlaneFamily, Part
from monai_sr_bundle.inferers.tiling import infer_tiled


class Box(InPlaneFamily):
    name = "box"

    def __init__(self, facts, bundle="this bundle"):
        super().__init__(facts, bundle)
        self.share = facts.get("share", 0.5)
        if not 0 <= self.share <= 1:
            raise BundleError(f"share is {self.share}, expected a number from 0 to 1. Correct it.")

    @property
    def parts(self):
        return (Part("model", "forward", ("image",), "pred", lambda network: (1,)),)

    def predict(self, stack, inference, region=None):
        def mix(window):
            repeated = np.kron(window, np.ones((self.scale, self.scale), dtype=np.float32))
            return self.share * repeated + (1 - self.share) * inference.networks.run("model", window)

        (high_res,), _ = infer_tiled(
            stack, mix, scale=self.scale, halo=self.halo, tile=inference.tile or self.fitting_tile(inference.networks),
            region=region, progress=inference.progress,
        )
        return high_res
'''
SHARE = np.float32(0.5)


@pytest.fixture
def box_bundle(tmp_path, monkeypatch) -> Path:
    """A bundle of the new family; the family is forgotten after the test, and no other is."""
    assert find_bundle("bicubic").family  # registers those that there are
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "box.py").write_text(FILE)
    path = [*monai_sr_bundle.families.__path__, str(tmp_path / "families")]
    monkeypatch.setattr(monai_sr_bundle.families, "__path__", path)
    monkeypatch.setattr(ModelFamily, "registered", dict(ModelFamily.registered))
    monkeypatch.delitem(sys.modules, "monai_sr_bundle.families.box", raising=False)
    return with_facts(copied(tmp_path, "bicubic"), family="box")


@pytest.fixture
def film() -> np.ndarray:
    return np.rint(255 * draw_phantom(64)[12:52]).astype(np.uint8)


@pytest.fixture
def expected(film) -> np.ndarray:
    """Made of the mathematics, not of the family."""
    low = film.astype(np.float32) / 255
    with torch.inference_mode():
        bicubic = Bicubic(4)(torch.from_numpy(low)[None, None])[0, 0].numpy()
    return SHARE * low.repeat(4, axis=0).repeat(4, axis=1) + (1 - SHARE) * bicubic


def assert_equal_to_a_grey_level(pixels: np.ndarray, expected: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    difference = pixels.astype(int) - np.rint(255 * expected.clip(0, 1)).astype(int)
    # Half a grey level may be rounded either way.
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_it_runs_in_python(box_bundle, film, expected, backend):
    image = image_from_array(film, modality="CXR")
    session = Session(open_bundle(box_bundle), backend, "cpu")
    result = session.enhance(image)
    assert_equal_to_a_grey_level(result.image.pixels[0], expected)
    assert result.provenance.bundle == "bicubic"
    tiled = session.enhance(image, EnhanceOptions(tile=64))
    np.testing.assert_array_equal(tiled.image.pixels, result.image.pixels)


def test_it_runs_on_the_command_line(box_bundle, film, expected, tmp_path):
    Picture.fromarray(film).save(tmp_path / "in.png")
    words = ["enhance", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--bundle", str(box_bundle), "--quiet"]
    assert main([*words, "--progress", "none"]) == 0
    assert_equal_to_a_grey_level(np.asarray(Picture.open(tmp_path / "out.png")), expected)


def test_it_runs_in_the_worker_of_a_viewer(box_bundle, film, expected, tmp_path):
    np.save(tmp_path / "in.npy", film[None])
    (tmp_path / "out").mkdir()
    rows, columns = film.shape
    request = {
        "do": "enhance", "id": 1, "array": str(tmp_path / "in.npy"), "out": str(tmp_path / "out"), "modality": "CXR",
        "region": [0, 1, 0, rows, 0, columns], "bundle": str(box_bundle),
    }  # fmt: skip
    stream = io.StringIO()
    Worker(Events(stream), "torch", "cpu").serve(io.BytesIO(json.dumps(request).encode() + b"\n"))
    *_, answer = map(json.loads, stream.getvalue().splitlines())
    assert answer["event"] == "done", answer
    assert_equal_to_a_grey_level(np.load(answer["result"])[0], expected)


def test_it_runs_as_an_inferer_of_monai(box_bundle, film, expected):
    inferer = TiledInferer("box", scale=4, halo=4, memory_per_pixel=400, operator="area_x4")
    low = torch.from_numpy(film.astype(np.float32) / 255)[None, None]
    np.testing.assert_allclose(inferer(low, Bicubic(4))[0, 0], expected, rtol=0, atol=1e-6)


def test_it_checks_its_part_of_model_yaml(box_bundle):
    message = r"bundle bicubic: model\.yaml: share is 2, expected a number from 0 to 1\. Correct it\."
    with pytest.raises(BundleError, match=message):
        open_bundle(with_facts(box_bundle, share=2))


def test_without_its_file_it_is_unknown(tmp_path):
    folder = with_facts(copied(tmp_path, "bicubic"), family="box")
    with pytest.raises(BundleError, match="family is 'box', expected one of diffusion, flow, one_pass, through_plane"):
        open_bundle(folder)
