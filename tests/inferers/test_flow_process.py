"""Rectified flows: the steps of Adams and Bashforth, and an image that follows from the options alone."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.families.flow import FlowDenoiser
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.processes import MOST_STEPS, RectifiedFlow
from monai_sr_bundle.inferers.sampler import needed_regions, sample, shuffle, unshuffle
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from tests.families.stated import stated_family
from tests.networks.measured import trained_like
from tests.tiny_flow import TINY

PROCESS = RectifiedFlow(noise=0.5, residual_std=0.1)
RADIUS = 7
AREA = "area_x4"


def image(rows, columns):
    return np.random.default_rng(3).random((rows, columns), dtype=np.float32)


def cells_of(low, number=0):
    """Return the noise of seed 4, of standard deviation 1."""
    return SamplerOptions(seed=4).generator(number).standard_normal((16, *low.shape), dtype=np.float32)


def networks_of(velocity):
    """Return networks whose expected image is zeros and whose velocity is a function of state, condition and time."""

    def run(part, *inputs):
        if part == "velocity":
            state, condition, times = inputs
            return velocity(state, condition, times[0])
        return np.zeros((1, 1, 4 * inputs[0].shape[2], 4 * inputs[0].shape[3]), np.float32)

    return SimpleNamespace(run=run)


def sample_residual(low, velocity, steps, texture=1.0, samples=1):
    """Sample the residual in cells, in units of its standard deviation, on top of an expected image of zeros."""

    flow = FlowDenoiser(networks_of(velocity), 4, PROCESS.residual_std)
    options = SamplerOptions(steps=steps, seed=4, samples=samples, texture=texture)
    residual, _ = sample(low, flow, PROCESS, options, scale=4, halo=0, grid=1, tile=64)
    return unshuffle(residual[None, None], 4)[0] / np.float32(PROCESS.residual_std)


@pytest.mark.parametrize("steps", [1, 8])
def test_the_exact_velocity_arrives_at_the_residual_in_any_number_of_steps(steps):
    low, residual = image(6, 9), np.random.default_rng(1).standard_normal((16, 6, 9)).astype(np.float32)

    def straight(state, condition, time):
        # Constant along the way, as it is where noise and residual belong together.
        return residual[None] - PROCESS.noise * cells_of(low)[None]

    np.testing.assert_allclose(sample_residual(low, straight, steps), residual, atol=1e-5)
    np.testing.assert_allclose(sample_residual(low, straight, steps, texture=0.3), 0.3 * residual, atol=1e-5)


def times_of(steps):
    return (np.arange(steps + 1) / steps) ** 1.25


def follow_path(velocity, start, steps):
    """Return the end of the path whose every step integrates the line through this velocity and the one before."""
    state, times, before = start, times_of(steps), None
    for time, after in pairwise(times):
        now = (time, velocity(state, time))
        line = np.polynomial.Polynomial([now[1]]) if before is None else _line(before, now)
        integral = line.integ()
        state, before = state + integral(after) - integral(time), now
    return state


def _line(first, second):
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return np.polynomial.Polynomial([first[1] - slope * first[0], slope])


@pytest.mark.parametrize("steps", [1, 2, 4, 64])
def test_a_step_follows_the_line_through_the_last_two_velocities(steps):
    low = image(1, 2)
    cells = sample_residual(low, lambda state, condition, time: (time - 0.7) * state + 0.2, steps)
    for cell, start in zip(cells.ravel(), PROCESS.noise * cells_of(low).ravel(), strict=True):
        expected = follow_path(lambda state, time: (time - 0.7) * state + 0.2, float(start), steps)
        assert cell == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_error_of_the_steps_falls_with_their_square():
    low = image(5, 7)
    exact = 0.2 / 0.7 + np.exp(-0.7) * (PROCESS.noise * cells_of(low) - 0.2 / 0.7)
    few, many = (
        np.abs(sample_residual(low, lambda state, condition, time: -0.7 * state + 0.2, steps) - exact).max()
        for steps in (16, 64)
    )
    assert 12 < few / many < 20


def test_the_network_is_told_the_time_before_each_step_and_the_end_it_foresees_is_watched():
    times, foreseen = [], []

    def steady(state, condition, time):
        times.append(time)
        return np.ones_like(state)

    def on_step(index, state, clean):
        foreseen.append((clean - state).mean())

    flow = FlowDenoiser(networks_of(steady), 4, PROCESS.residual_std)
    sample(image(8, 8), flow, PROCESS, SamplerOptions(steps=4), scale=4, halo=0, grid=1, tile=64, on_step=on_step)
    np.testing.assert_allclose(times, times_of(4)[:-1])
    np.testing.assert_allclose(foreseen, 1 - times_of(4)[:-1], rtol=1e-5)


def test_a_sample_does_not_know_of_the_one_before_it(monkeypatch):
    def velocity(state, condition, time):
        return -3 * state * np.abs(state)

    low = image(5, 6)
    both = sample_residual(low, velocity, 4, samples=2)
    first = sample_residual(low, velocity, 4)
    draw = SamplerOptions.generator
    monkeypatch.setattr(SamplerOptions, "generator", lambda options, sample: draw(options, sample + 1))
    second = sample_residual(low, velocity, 4)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(both, (first + second) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_cells_have_the_order_of_pytorch(factor):
    pixels = np.random.default_rng(0).random((2, 1, 3 * factor, 5 * factor), dtype=np.float32)
    cells = unshuffle(pixels, factor)
    np.testing.assert_array_equal(cells, pixel_unshuffle(torch.from_numpy(pixels), factor))
    np.testing.assert_array_equal(shuffle(cells, factor), pixel_shuffle(torch.from_numpy(cells), factor))
    np.testing.assert_array_equal(shuffle(cells, factor), pixels)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = trained_like(ResidualFlow(4, **TINY))
    network.process.copy_(torch.from_numpy(PROCESS.fingerprint()))
    for tail in (network.tail, network.flow.tail):
        tail.weight.data.mul_(0.1)
    return network


def sample_image(network, low, options, tile=10_000, process=PROCESS, **sizes):
    family = stated_family("flow", diffusion={"noise": process.noise, "residual_std": 0.1, "texture": 0.0})
    denoiser = family.denoiser(TorchNetworks(network, family.parts, "cpu"))
    return sample(low, denoiser, process, options, scale=4, halo=RADIUS, grid=1, tile=tile, **sizes)[0]


@torch.inference_mode()
def test_one_step_is_what_the_network_says_of_the_noise(network):
    low = image(9, 12)
    tensor = torch.from_numpy(low)[None, None]
    state, condition = 0.5 * torch.from_numpy(cells_of(low))[None], network.encode(tensor)
    velocity = network.velocity(state, condition, torch.zeros(1))
    expected = network(tensor) + PROCESS.residual_std * pixel_shuffle(state + velocity, 4)
    result = sample_image(network, low, SamplerOptions(steps=1, seed=4))
    assert result.shape == (36, 48)
    torch.testing.assert_close(torch.from_numpy(result), expected[0, 0], atol=1e-5, rtol=0)


def test_steps_around_a_region_look_as_far_as_their_own_network(network):
    low, options, region = image(170, 180), SamplerOptions(steps=4, seed=4), Region(80, 90, 100, 108)
    whole = sample_image(network, low, options)[320:360, 400:432]

    def difference_with(halo):
        part = sample_image(network, low, options, process=replace(PROCESS, halo=halo), region=region)
        return np.abs(part - whole).max()

    assert network.velocity_radius == 4 < RADIUS
    assert difference_with(4) < 1e-5
    assert difference_with(1) > 1e-4


@pytest.mark.parametrize(("halo", "margins"), [(7, (35, 28, 21, 14, 7)), (2, (10, 8, 6, 4, 2)), (0, (0, 0, 0, 0, 0))])
def test_every_step_computes_fewer_cells_around_a_region(halo, margins):
    assert needed_regions(Region(100, 110, 3, 5), 4, halo) == [
        (100 - margin, 110 + margin, 3 - margin, 5 + margin) for margin in margins
    ]


def test_progress_is_of_the_cells_that_are_left(network):
    shares = []
    options, process = SamplerOptions(steps=3, seed=4), replace(PROCESS, halo=4)
    sample_image(
        network, image(60, 60), options, process=process, region=Region(20, 30, 20, 30), progress=shares.append
    )
    areas = np.array([(10 + 2 * margin) ** 2 for margin in (12, 8, 4)])
    np.testing.assert_allclose(shares, areas.cumsum() / areas.sum())


def test_in_a_workflow_every_slice_has_its_own_noise_and_no_texture_is_one_pass(network):
    low = 0.3 + 0.3 * image(16, 16)  # no letters, where no texture is drawn
    facts = {"noise": 0.5, "residual_std": 0.1, "steps": 2, "samples": 1}
    volume = torch.from_numpy(np.stack([low, low], axis=-1))[None, None]
    enlarged = TiledInferer("flow", 4, RADIUS, 1000, AREA, diffusion=facts | {"texture": 0.4}, seed=4)(volume, network)
    for index in range(2):
        expected = sample_image(network, low, SamplerOptions(steps=2, seed=4, stream=index, texture=0.4))
        np.testing.assert_array_equal(enlarged[0, 0, ..., index].numpy(), expected)
    plain = TiledInferer("flow", 4, RADIUS, 1000, AREA, diffusion=facts | {"texture": 0.0})(volume, network)
    with torch.inference_mode():
        torch.testing.assert_close(plain[..., 1], network(volume[..., 1]), atol=1e-6, rtol=0)


def test_a_bundle_states_which_process_it_has():
    facts = {"noise": 0.3, "residual_std": 0.02, "steps": 4, "samples": 2, "texture": 0.0}
    assert RectifiedFlow.of(facts) == RectifiedFlow(0.3, 0.02)
    assert SamplerOptions(steps=8).with_defaults(facts) == SamplerOptions(steps=8, samples=2, texture=0.0)


def test_what_is_told_of_a_draw():
    assert PROCESS.sampling(SamplerOptions(steps=4, samples=3, texture=0.5)) == ("flow", 4, 3, 0.5)
    assert PROCESS.sampling(SamplerOptions(steps=4, samples=3, texture=0.5)).words == (
        "texture 0.5 by flow in 4 steps, mean of 3 samples"
    )
    assert PROCESS.sampling(SamplerOptions(texture=1.0)).words == "texture 1 by flow in 1 step"
    assert PROCESS.sampling(SamplerOptions(steps=4, texture=0.0)) is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"limit": 0}, "the flow has limit 0, expected a number above 0, or no limit"),
        ({"noise": 0.0}, "the flow has noise 0.0 and residual_std 0.0175, expected numbers above 0"),
        ({"residual_std": -1.0}, "the flow has noise 0.5 and residual_std -1.0, expected"),
        ({"noise": float("nan")}, "noise nan"),
        ({"halo": 0}, "the flow has halo 0, expected a whole number of cells above 0"),
        ({"halo": 1.5}, "the flow has halo 1.5, expected a whole number"),
        (
            {"sampler": "ddim", "beta": 1},
            "unknown beta, sampler; it states halo, limit, noise, residual_std, samples",
        ),
    ],
)
def test_a_flow_that_cannot_be_is_refused(facts, message):
    with pytest.raises(BundleError, match=message):
        RectifiedFlow.of({"texture": 0.0, **facts})


def test_a_flow_says_how_much_texture_it_adds_by_itself():
    with pytest.raises(BundleError, match="a flow without its `texture`; expected 0 for the expected image"):
        RectifiedFlow.of({})


def test_weights_of_another_flow_are_refused():
    flow = RectifiedFlow.of({"texture": 0.0})
    flow.check_fingerprint(flow.fingerprint())
    with pytest.raises(BundleError, match="trained for noise 0.25 and residual_std 0.0175, but model.yaml"):
        flow.check_fingerprint(np.array([0.25, 0.0175], dtype=np.float32))
    with pytest.raises(BundleError, match="trained for no flow yet"):
        flow.check_fingerprint(np.zeros(2, dtype=np.float32))


@pytest.mark.parametrize("steps", [0, MOST_STEPS + 1])
def test_steps_that_make_no_sense_are_refused(steps):
    with pytest.raises(InputError, match=f"--steps {steps}: a flow takes 1 to 64 steps; 1, 2, 4 and 8 are usual"):
        PROCESS.check_steps(steps)


@pytest.mark.parametrize("texture", [-0.1, 1.1, float("nan")])
def test_a_texture_out_of_range_is_refused(texture):
    with pytest.raises(InputError, match=f"--texture {texture:g}: expected a number from 0, the most faithful, to 1"):
        SamplerOptions(texture=texture)


def test_what_viewers_import_brings_no_pytorch():
    modules = [
        "inferers.sampler",
        "inferers.processes",
        "inferers.data_consistency",
        "backends.onnx_backend",
        "engine.session",
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(f'monai_sr_bundle.{{name}}') for name in {modules}]; "
        "print(sorted({'torch', 'monai', 'diffusers'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
