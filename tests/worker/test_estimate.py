"""What an enlargement will take: as many pixels as the networks really see, at the speed of a small image."""

from dataclasses import replace

import numpy as np
import pytest

from monai_sr_bundle.backends.backend import enlarge, open_backend
from monai_sr_bundle.bundles import find_bundle, open_bundle
from monai_sr_bundle.inferers.diffusion_process import Draw
from monai_sr_bundle.inferers.flow_process import process_of
from monai_sr_bundle.worker import estimate
from monai_sr_bundle.worker.estimate import LARGER, SEVERAL, SIDE, Extent, Speed, _several
from tests.changed_bundles import copied, with_facts
from tests.tiny_flow import released_flow

SHAPE = (1, 400, 380)
REGION = (150, 190, 40, 104)
DRAW = Draw(steps=6, texture=1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return find_bundle(str(released_flow(tmp_path_factory.mktemp("flow"))[0]))


def seen(bundle, backend, draw, region):
    """Pixels that each network is given for a region."""
    counted = {"pass": 0, "step": 0}

    def counting(network, what):
        def count(window, *args):
            counted[what] += window.shape[-2] * window.shape[-1]
            return network(window, *args)

        return count

    denoiser = backend.denoiser
    encode, denoise = denoiser.encode, denoiser.denoise
    denoiser.encode, denoiser.denoise = counting(encode, "pass"), counting(denoise, "step")
    try:
        image = np.random.default_rng(0).random(SHAPE[1:], dtype=np.float32)
        enlarge(image, bundle, backend, draw=draw, region=region)
    finally:
        denoiser.encode, denoiser.denoise = encode, denoise
    return counted


@pytest.mark.parametrize("region", [REGION, (0, 400, 0, 380)])
@pytest.mark.parametrize("texture", [0.5, 1.0])
def test_the_seconds_are_those_of_the_pixels_that_the_networks_really_see(bundle, monkeypatch, region, texture):
    draw = replace(DRAW, texture=texture)
    backend = open_backend(bundle, "torch")
    # One pass takes 3 s of the small image, and every step 0.5 s.
    monkeypatch.setattr(estimate, "_run_small", lambda bundle, backend, draw, bars, side: 3 + 0.5 * draw.steps)
    found = Speed().seconds(Extent(SHAPE, (0, 1), region), bundle, backend, draw, error_bars=False)
    counted = seen(bundle, backend, draw, region)
    assert found == pytest.approx((3 * counted["pass"] + 0.5 * counted["step"]) / SIDE**2)


def test_steps_and_samples_count_and_a_step_is_not_forgotten_when_one_run_was_slow(bundle, monkeypatch):
    backend, extent = open_backend(bundle, "torch"), Extent(SHAPE, (0, 1), REGION)
    slow = iter([9.0, 1.1, 9.0, 1.4])  # one step twice, then several: the slow run of each does not count
    monkeypatch.setattr(estimate, "_run_small", lambda *_: next(slow))
    speed = Speed()
    found = {
        (steps, samples): speed.seconds(
            extent, bundle, backend, replace(DRAW, steps=steps, samples=samples), error_bars=False
        )
        for steps, samples in ((1, 1), (6, 1), (32, 1), (6, 3))
    }
    assert found[1, 1] < found[6, 1] < found[32, 1]
    assert found[6, 3] == pytest.approx(3 * found[6, 1])
    steps = seen(bundle, backend, DRAW, REGION)
    expected = (1.1 - 0.1) * steps["pass"] + (1.4 - 1.1) / (SEVERAL - 1) * steps["step"]
    assert found[6, 1] == pytest.approx(expected / SIDE**2)


@pytest.mark.parametrize(("seconds", "side"), [(0.01, LARGER), (0.5, SIDE)])
def test_a_quick_network_is_measured_on_a_larger_image_and_its_steps_on_the_same(bundle, monkeypatch, seconds, side):
    sides = []

    def run(bundle, backend, draw, bars, side):
        sides.append((draw.steps, side))
        return seconds * draw.steps

    monkeypatch.setattr(estimate, "_run_small", run)
    extent = Extent(SHAPE, (0, 1), (0, 400, 0, 380))
    found = Speed().seconds(extent, bundle, open_backend(bundle, "torch"), DRAW, error_bars=False)
    first = [(1, SIDE)] * 2 * (side != SIDE)
    assert sides == [*first, (1, side), (1, side), (SEVERAL, side), (SEVERAL, side)]
    assert found > 6 * seconds * 400 * 380 / side**2


@pytest.mark.parametrize(("most", "few"), [(1000, 4), (300, 4), (10, 5), (7, 7), (2, 2)])
def test_the_steps_that_are_measured_are_steps_that_the_process_has(tmp_path, most, few):
    folder = with_facts(copied(tmp_path, "chest_xray_sr3_x4"), diffusion={"training_steps": most})
    process_of({"training_steps": most}).check_steps(few)
    assert _several(open_bundle(folder)) == few


def test_a_flow_is_measured_in_four_steps(bundle):
    assert _several(bundle) == SEVERAL
