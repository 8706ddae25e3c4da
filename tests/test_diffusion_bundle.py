"""A bundle of a diffusion model: noise of its own for each slice, finite numbers, and what it needs to run."""

import importlib.util
import shutil

import numpy as np
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.errors import BundleError

from tests.changed_bundles import with_facts
from tests.tiny_diffusion import SR3_BUNDLE, released_diffusion


@pytest.fixture(scope="module")
def sr3(tmp_path_factory):
    return str(released_diffusion(tmp_path_factory.mktemp("sr3"), SR3_BUNDLE)[0])


@pytest.fixture(scope="module")
def film():
    return draw_phantom(32).astype(np.float32)[4:12, 3:11]


def test_every_slice_gets_noise_of_its_own(sr3):
    first, second = enhance(np.full((2, 16, 16), 100, np.uint8), sr3, steps=2).image.pixels
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [1, 4, 8, 20])
def test_any_number_of_steps_leads_from_noise_alone_to_finite_numbers(sr3, film, sampler, steps):
    assert np.isfinite(enhance(film, sr3, steps=steps, sampler=sampler).image.pixels).all()


@pytest.mark.parametrize("change", [{"prediction": "sample"}, {"training_steps": 500}, {"schedule": "linear"}])
def test_weights_of_another_process_are_refused(sr3, film, tmp_path, change):
    bundle_dir = shutil.copytree(sr3, tmp_path / SR3_BUNDLE)
    with_facts(bundle_dir, diffusion=open_bundle(bundle_dir).facts["diffusion"] | change)
    with pytest.raises(BundleError, match="bundle chest_xray_sr3_x4: the weights were trained to predict v_prediction"):
        enhance(film, str(bundle_dir), backend="torch", steps=2)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_without_diffusers_the_error_says_how_to_install_it(sr3, film, monkeypatch, backend):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else find_spec(name))
    with pytest.raises(BundleError, match=r"diffusion model needs diffusers, not installed here.*\[torch,diffusion\]"):
        enhance(film, sr3, backend=backend, steps=2)
    assert enhance(film, "bicubic", backend=backend).image.pixels.shape == (1, 32, 32)
