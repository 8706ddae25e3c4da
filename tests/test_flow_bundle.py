"""A bundle of a residual flow: the expected image by default, texture on demand, both consistent with the input."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.packing.verify import verify
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import with_facts
from tests.drawn_data import write_radiographs
from tests.tiny_flow import FLOW_BUNDLE, released_flow


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return str(released_flow(tmp_path_factory.mktemp("flow"))[0])


@pytest.fixture(scope="module")
def film():
    return np.rint(draw_phantom(32) * 255).astype(np.uint8)[4:28, 3:30]


@torch.inference_mode()
def predict(bundle_dir, film):
    """The expected image as the network alone makes it, in units of the window."""
    low_res = torch.from_numpy(film / np.float32(255))[None, None]
    return load_network(find_bundle(str(bundle_dir)))[0](low_res)[0, 0].numpy()


def test_without_texture_the_result_is_one_pass_made_consistent(flow, film):
    degradation = find_bundle(flow).degradation
    expected = predict(flow, film)
    plain = np.rint(expected.clip(0, 1) * 255)
    DataConsistency(degradation)(expected, film.astype(np.float32) / 255, limits=(0.0, 1.0))
    results = [enhance(film, flow, backend="torch", **options) for options in ({}, {"texture": 0, "steps": 8})]
    for result in results:
        pixels = result.image.pixels[0]
        np.testing.assert_allclose(pixels, np.rint(expected * 255), atol=1)  # half a grey level is rounded either way
        assert (result.provenance.sampling, result.provenance.generative) == (None, False)
    errors = [np.abs(degradation.reduce(image) - film).mean() for image in (255 * expected, pixels, plain)]
    assert errors[0] < 0.3
    assert errors[1] < 0.5 < 3 < errors[2]  # grey levels


def test_texture_keeps_what_the_input_says(flow):
    chest = draw_phantom(32).astype(np.float32)
    expected, textured = (enhance(chest, flow, texture=texture).image.pixels[0] for texture in (0.0, 1.0))
    assert np.abs(textured - expected).max() > 0.02
    np.testing.assert_allclose(find_bundle(flow).degradation.reduce(textured), chest, rtol=0, atol=1e-3)


def test_without_consistency_the_network_alone_decides(flow, film, tmp_path):
    bundle_dir = with_facts(shutil.copytree(flow, tmp_path / FLOW_BUNDLE), consistency=False)
    pixels = enhance(film, str(bundle_dir), backend="torch").image.pixels[0]
    expected = predict(bundle_dir, film).clip(0, 1)
    np.testing.assert_allclose(pixels, np.rint(expected * 255), atol=1)  # half a grey level is rounded either way


def test_a_flow_needs_no_diffusers(flow, film, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else find_spec(name))
    assert enhance(film, flow, texture=1.0).image.pixels.shape == (1, 96, 108)


def test_a_velocity_of_other_weights_fails_its_check(flow, tmp_path):
    folder = pack(flow, tmp_path)
    weights, metadata = folder / "models" / "model.pt", folder / "configs" / "metadata.json"
    state = torch.load(weights, weights_only=True)
    state["flow.tail.bias"] += 1
    torch.save(state, weights)
    content = json.loads(metadata.read_text())
    content["weights_sha256"]["model.pt"] = sha256_of(weights)
    metadata.write_text(json.dumps(content))
    (check,) = verify(folder, only=["ONNX equals PyTorch"])
    assert "models/velocity.onnx differs from PyTorch by 1.0e+00" in check.message


def test_the_command_line_measures_with_texture(flow, tmp_path, capsys):
    data = write_radiographs(tmp_path, size=96, counts=(("test", 1),))
    headers = []
    for options in ((), ("--texture", "0.5", "--steps", "2")):
        assert main(["evaluate", flow, "--data", str(data), "--sets", "drawn", *options]) == 0
        headers.append(capsys.readouterr().out.splitlines()[0])
    assert "texture" not in headers[0]
    assert headers[1].endswith("texture 0.5 by flow in 2 steps")


def test_no_texture_is_drawn_at_letters_and_beyond_the_exposed_field(flow):
    film = np.float32(0.25) + np.float32(0.5) * draw_phantom(64).astype(np.float32)
    film[:, :16] = 0  # beyond the field
    film[24:36, 40:52] = 1
    film[27:33, 44:48] = 0.4  # the inside of a letter
    expected, textured = (enhance(film, flow, texture=texture).image.pixels[0] for texture in (0.0, 1.0))
    change = np.abs(textured - expected)
    # What is drawn beside these places reaches a little into them, where the result is made consistent with the input.
    assert change[:, : 4 * 8].max() < 1e-6
    assert change[4 * 50 :, 4 * 24 :].max() > 0.02
    region = enhance(film, flow, texture=1.0, roi=(8, 20, 56, 60)).image.pixels[0]
    np.testing.assert_allclose(region, textured[80:240, 32:224], atol=1e-5)
