"""Properties of every network from image to image: size, reach, gradients, beginning, exports and refusals."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.edsr import EDSR, MDSR
from monai_sr_bundle.networks.esrgan import RRDBNet
from monai_sr_bundle.networks.noise_unet import NoiseUNet
from monai_sr_bundle.networks.residual_flow import FilmFlow, ResidualFlow
from monai_sr_bundle.networks.runet import RUNet
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.networks.srcnn import SRCNN
from monai_sr_bundle.networks.srgan import Discriminator, SRResNet
from monai_sr_bundle.networks.srgan_vdsr import SRGANVDSR
from monai_sr_bundle.networks.through_plane import ThroughPlane
from monai_sr_bundle.networks.vdsr import VDSR
from monai_sr_bundle.shipped_bundles import all_bundles, all_variants
from torch.nn.functional import interpolate

from tests.networks.measured import assert_onnx_agrees, reach, trained_like, without_gradient

FLOW = {"channels": 8, "blocks": 1, "refinement": 1, "flow_channels": 8, "flow_blocks": 1}


def name_of(value: object) -> str:
    """The part of a test's name that is the network."""
    return value.__name__ if isinstance(value, type) else type(value).__name__ if callable(value) else ""


def mdsr(scale: int) -> torch.nn.Module:
    return MDSR(scale=scale, channels=8, dilations=(1, 2))


SMALL = {
    "EDSR": partial(EDSR, channels=8, blocks=2),
    "ESRGAN": partial(RRDBNet, channels=8, growth=4, blocks=1),
    "MDSR": mdsr,
    "film flow": lambda scale: FilmFlow(scale=scale, channels=8, dilations=(1, 2), flow_channels=8, flow_blocks=1),
    "RUNet": partial(RUNet, channels=8),
    "RUNet by nearest": partial(RUNet, channels=8, interpolation="nearest"),
    "SRCNN": partial(SRCNN, channels=(16, 8)),
    "SRGAN": partial(SRResNet, channels=8, blocks=2),
    "SRGAN-VDSR": lambda scale: SRGANVDSR(channels=8, blocks=2, depth=3),
    "VDSR": partial(VDSR, channels=8, depth=6),
    "residual flow": partial(ResidualFlow, **FLOW),
    "residual flow, mirrored": partial(ResidualFlow, **FLOW, mirror=True),
}
"""Networks by their scale."""
SCALES = {
    "ESRGAN": (2, 4, 8), "MDSR": (2, 3, 4), "RUNet": (2, 4, 5), "RUNet by nearest": (2, 5), "SRGAN": (2, 4, 8),
    "SRGAN-VDSR": (4,), "residual flow": (2, 4), "residual flow, mirrored": (4,),
}  # fmt: skip
"""Scales that a network is made for; else 2, 3 and 4."""


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in SMALL for scale in SCALES.get(name, (2, 3, 4))])
@torch.inference_mode()
def test_an_image_of_any_size_is_enlarged(name, scale):
    network = SMALL[name](scale).eval()
    for rows, columns in ((7, 11), (1, 40)):
        assert network(torch.rand(2, 1, rows, columns)).shape == (2, 1, scale * rows, scale * columns)


@pytest.mark.parametrize(
    ("network_class", "weights"),
    [
        (Discriminator, 23_562_497),
        (EDSR, 360_736),
        (FilmFlow, 725_149),
        (MDSR, 449_501),
        (RRDBNet, 16_695_681),
        (RUNet, 41_332_982),
        (SRCNN, 57_281),
        (SRGANVDSR, 1_352_640),
        (SRResNet, 1_547_350 - 2 * (2 * 9 * 9 * 64) - 2),  # published, without two more colours at both ends
        (ThroughPlane, 358_134),
        (VDSR, 665_921),
    ],
    ids=name_of,
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_the_default_size_is_that_of_the_paper_or_the_card(network_class, weights):
    with torch.device("meta"):
        network = network_class(96) if network_class is Discriminator else network_class()
    assert sum(value.numel() for value in network.parameters()) == weights


@pytest.mark.parametrize(
    ("make", "interpolation"),
    [
        (EDSR, Bicubic(4)),
        *((lambda scale=scale: MDSR(scale=scale), Bicubic(scale)) for scale in (2, 3, 4)),
        (ResidualFlow, Bicubic(4)),
        *(
            (partial(RUNet, channels=16, interpolation=mode), partial(interpolate, scale_factor=2.0, mode=mode))
            for mode in ("bilinear", "nearest")
        ),
        (VDSR, Bicubic(4)),
    ],
    ids=name_of,
)
@torch.inference_mode()
def test_an_untrained_network_is_almost_its_interpolation(make, interpolation):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 19, 16)
    assert 0 < (make().eval()(image) - interpolation(image)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("network_class", "arguments", "radius", "size", "slack"),
    [
        (EDSR, {"channels": 8, "blocks": 2}, 7, 32, 0),
        (RRDBNet, {"channels": 4, "growth": 2, "blocks": 4}, 64, 135, 0),
        *((RRDBNet, {"scale": n, "channels": 4, "growth": 2, "blocks": 1}, None, 45, 1) for n in (2, 8)),
        (SRCNN, {"channels": (8, 4)}, 4, 31, 0),
        (SRGANVDSR, {"channels": 8}, 24, 61, 0),
        (SRResNet, {"channels": 4}, 40, 91, 0),
        *((SRResNet, {"scale": n, "channels": 4, "blocks": 2}, None, 31, 1) for n in (2, 8)),
        (VDSR, {"channels": 4}, 7, 31, 0),
    ],
    ids=name_of,
)
def test_a_network_looks_as_far_as_it_says(network_class, arguments, radius, size, slack):
    network = trained_like(network_class(**arguments))
    distance = reach(network, size, size // 2, size // 2 - 1)
    assert distance <= network.receptive_radius <= distance + slack
    assert radius in (None, network.receptive_radius)


@pytest.mark.parametrize(
    "bundle", [each for bundle in all_bundles() for each in (bundle, *all_variants(bundle))], ids=lambda each: each.name
)
def test_every_bundle_and_variant_states_halo_grid_and_parameters_of_its_network(bundle):
    with torch.device("meta"):
        network, family = build_network(bundle), bundle.family
    assert family.grid % getattr(network, "grid", 1) == 0
    radius = getattr(network, "receptive_radius", 2)
    assert radius <= family.halo
    assert family.halo < radius + 8 or bundle.facts["network_def"].get("groups")  # which see the whole tile
    if family.name == "flow":
        assert family.process.halo == network.velocity_radius
    if bundle.parameters:
        assert bundle.parameters == sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize(
    "bundle", [each for each in all_bundles() if each.family.name == "diffusion"], ids=lambda each: each.name
)
def test_the_metadata_of_a_diffusion_model_states_what_each_part_takes_and_gives(bundle):
    with torch.device("meta"):
        network = build_network(bundle)
    for part in bundle.family.parts:
        data_format = bundle.metadata[f"{part.name}_data_format"]
        channels = {name: entry["num_channels"] for name, entry in data_format["inputs"].items()}
        assert channels == {name: number or 1 for name, number in zip(part.inputs, part.channels(network), strict=True)}
        assert list(data_format["outputs"]) == [part.output]


# Without the flow, whose velocity is another function, and MDSR, whose blocks begin as nothing.
@pytest.mark.parametrize("name", [name for name in SMALL if "flow" not in name and name != "MDSR"])
def test_every_parameter_is_trained(name):
    assert without_gradient(SMALL[name](4), torch.rand(2, 1, 32, 32)) == []


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, SCALES.get(name, (4,))[-1]) for name in SMALL), ("residual flow", 2)]
)
def test_onnx_gives_the_same_image(tmp_path, name, scale):
    assert_onnx_agrees(SMALL[name](scale), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["EDSR", "residual flow"])
@torch.inference_mode()
def test_torchscript_gives_the_same_image(name):
    network, image = trained_like(SMALL[name](4)), torch.rand(2, 1, 9, 14)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


@pytest.mark.parametrize(
    ("network_class", "arguments", "message"),
    [
        (Bicubic, {"scale": 1}, "scale is 1, expected a whole number from 2 to 64"),
        (Bicubic, {"scale": 10**30}, "scale is 10+, expected a whole number from 2 to 64"),
        *(
            (Discriminator, {"size": size}, f"size is {size}, expected a multiple of 16: four convolutions halve")
            for size in (0, 8, 40)
        ),
        (NoiseUNet, {"attention": True}, "attention needs groups, the normalisation before it"),
        (RRDBNet, {"scale": 6}, "scale is 6, expected 2, 4 or 8: every step enlarges by two"),
        (RUNet, {"interpolation": "bicubic"}, "interpolation is 'bicubic', expected 'bilinear' or 'nearest'"),
        *((RUNet, {"channels": count}, f"channels is {count}, expected a multiple of 4: pixel") for count in (0, 6)),
        *(
            (network_class, {**arguments, "slices": count}, f"slices is {count}, expected an odd number above 0")
            for network_class, arguments in ((MDSR, {}), (ResidualFlow, FLOW))
            for count in (0, 2, -1)
        ),
        *(
            (SR3, {"patch": patch}, f"patch is {patch}, expected a divisor of the scale, which is 4")
            for patch in (0, 3, 8)
        ),
        (SRCNN, {"kernels": (9, 4, 5)}, r"kernels are \(9, 4, 5\), expected odd sides"),
        (SRGANVDSR, {"channels": 4}, "channels is 4, expected a number that makes three parts"),
        (SRResNet, {"scale": 3}, "scale is 3, expected 2, 4 or 8: every pixel shuffle enlarges by two"),
        *((ThroughPlane, {"slices": n}, f"slices is {n}, expected an odd number of at least 3") for n in (1, 4)),
        (VDSR, {"depth": 1}, "depth is 1, expected at least 2: a first and a last convolution"),
    ],
    ids=name_of,
)  # fmt: skip
def test_arguments_that_make_no_network_are_refused(network_class, arguments, message):
    ends = (3, 2) if network_class is NoiseUNet else ()
    with pytest.raises(ValueError, match=message):
        network_class(*ends, **arguments)
