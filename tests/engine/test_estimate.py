"""The estimate of an enlargement: as many pixels as the networks really see, at the speed of a small image."""

from dataclasses import replace

import numpy as np
import pytest
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.engine.estimate import (
    LARGER_SIDE,
    SEVERAL_STEPS,
    SIDE,
    Speed,
    result_bytes,
    sampler_steps,
    valid_steps,
)
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.families.family import Extent, Inference
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import copied, with_facts
from tests.families.stated import stated_family
from tests.tiny_flow import released_flow

SHAPE = (1, 400, 380)
REGION = Region(150, 190, 40, 104)
OPTIONS = SamplerOptions(steps=6, texture=1.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return Session(find_bundle(str(released_flow(tmp_path_factory.mktemp("flow"))[0])), "torch")


def count_pixels(session, options, region):
    """Count the pixels that each network is given for a region."""
    counted = {"model": 0, "velocity": 0}
    backend = session.backend
    run = backend.run

    def count(part, window, *inputs):
        counted[part] += window.shape[-2] * window.shape[-1]
        return run(part, window, *inputs)

    backend.run = count
    try:
        # Neither letters nor a frame, where no texture is drawn and the network runs once more.
        image = 0.3 + 0.3 * np.random.default_rng(0).random(SHAPE[1:], dtype=np.float32)
        session.bundle.family.enlarge_slice(image, Inference(backend, options), region=region)
    finally:
        del backend.run
    return counted


@pytest.mark.parametrize("region", [REGION, Region(0, 400, 0, 380)])
@pytest.mark.parametrize("texture", [0.5, 1.0])
def test_the_seconds_are_those_of_the_pixels_that_the_networks_really_see(session, region, texture):
    options = replace(OPTIONS, texture=texture)
    # One pass takes 3 s of the small image, and every step 0.5 s.
    speed = Speed(lambda session, options, bars, side: 3 + 0.5 * options.steps, lambda *_: 0.0)
    seconds = speed.seconds(Extent(SHAPE, (0, 1), region), session, options, error_bars=False)
    counted = count_pixels(session, options, region)
    assert seconds == pytest.approx((3 * counted["model"] + 0.5 * counted["velocity"]) / SIDE**2)


def test_steps_and_samples_count_and_a_step_is_not_forgotten_when_one_run_was_slow(session):
    extent = Extent(SHAPE, (0, 1), REGION)
    trials = iter([9.0, 1.1, 9.0, 1.4])  # one step twice, then several: the slow run of each does not count
    speed = Speed(lambda *_: next(trials), lambda *_: 0.0)
    seconds = {
        (steps, samples): speed.seconds(
            extent, session, replace(OPTIONS, steps=steps, samples=samples), error_bars=False
        )
        for steps, samples in ((1, 1), (6, 1), (32, 1), (6, 3))
    }
    assert seconds[1, 1] < seconds[6, 1] < seconds[32, 1]
    assert seconds[6, 3] == pytest.approx(3 * seconds[6, 1])
    counted = count_pixels(session, OPTIONS, REGION)
    expected = (1.1 - 0.1) * counted["model"] + (1.4 - 1.1) / (SEVERAL_STEPS - 1) * counted["velocity"]
    assert seconds[6, 1] == pytest.approx(expected / SIDE**2)


@pytest.mark.parametrize(("seconds", "side"), [(0.01, LARGER_SIDE), (0.5, SIDE)])
def test_a_quick_network_is_measured_on_a_larger_image_and_its_steps_on_the_same(session, seconds, side):
    trials = []

    def measure(session, options, bars, side):
        trials.append((options.steps, side))
        return seconds * options.steps

    extent = Extent(SHAPE, (0, 1), Region(0, 400, 0, 380))
    estimate = Speed(measure, lambda *_: 0.0).seconds(extent, session, OPTIONS, error_bars=False)
    first_trials = [(1, SIDE)] * 2 * (side != SIDE)
    assert trials == [*first_trials, (1, side), (1, side), (SEVERAL_STEPS, side), (SEVERAL_STEPS, side)]
    assert estimate > 6 * seconds * 400 * 380 / side**2


def test_drawing_counts_every_pixel_of_the_slices_and_samples_however_small_the_region(session):
    speed = Speed(lambda *_: 0.0, lambda session, options: 0.25 * options.steps)
    extent = Extent((5, 400, 380), (1, 3), Region(0, 8, 0, 8))
    options = replace(OPTIONS, samples=3)
    assert speed.seconds(extent, session, options, error_bars=False) == 0.25 * 3 * 2 * 400 * 380
    assert speed.seconds(extent, session, replace(OPTIONS, texture=0.0), error_bars=False) == 0  # nothing is drawn


@pytest.mark.parametrize(("most", "few"), [(1000, 4), (300, 4), (10, 5), (7, 7), (2, 2)])
def test_the_steps_that_are_measured_are_steps_that_the_process_has(tmp_path, most, few):
    folder = with_facts(copied(tmp_path, "chest_xray_sr3_x4"), diffusion={"training_steps": most})
    family = open_bundle(folder).family
    family.process.check_steps(few)
    assert valid_steps(family, SEVERAL_STEPS) == few


def test_a_flow_is_measured_in_four_steps(session):
    assert valid_steps(session.bundle.family, SEVERAL_STEPS) == SEVERAL_STEPS


def test_the_steps_are_those_of_the_sampler_and_none_where_nothing_is_drawn():
    diffusion, flow = stated_family("diffusion"), stated_family("flow")
    assert sampler_steps(diffusion, diffusion.resolve(SamplerOptions())) == 4
    assert sampler_steps(flow, flow.resolve(SamplerOptions(texture=0.5))) == 2
    for name in ("one_pass", "through_plane"):
        assert sampler_steps(stated_family(name), SamplerOptions()) == 0


def test_a_volume_takes_no_more_memory_along_its_slices_than_a_few_of_them():
    family = find_bundle("chest_ct_throughplane").family
    extents = [Extent((count, 512, 512), (0, count), Region.whole(512, 512)) for count in (3, 300)]
    few, many = (result_bytes(family, extent) for extent in extents)
    assert few == many < 16e6
