import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import list_data_collate
from monai_sr_bundle import enhance
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.errors import UsageError
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.transforms.image_files import LIMITS

FACTS = {"family": "one_pass", "scale": 4, "memory_per_pixel": 400, "operator": "area_x4"}


def inferer(tile=None):
    return TiledInferer(**FACTS, halo=4, tile=tile)


def test_tiles_give_the_result_of_the_whole():
    image = torch.rand(2, 1, 170, 190, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inferer(tile=64)(image, Bicubic(4)), Bicubic(4)(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("tile", [-5, "auto", 64.5])
def test_a_tile_that_is_no_whole_number_is_refused(tile):
    message = f"tile is {tile}, expected a whole number above 0"
    with pytest.raises(UsageError, match=message):
        inferer(tile=tile)
    with pytest.raises(UsageError, match=message):
        enhance(np.zeros((16, 16), np.uint8), "bicubic", tile=tile)
    assert inferer(tile=0).tile is None


def test_windows_lie_on_the_grid_of_a_network_that_pools():
    shapes = []

    def network(image):
        shapes.append(image.shape[2:])
        pooled = torch.nn.functional.max_pool2d(image, 4, ceil_mode=True)
        rows, columns = (4 * side for side in image.shape[2:])
        return torch.nn.functional.interpolate(pooled, scale_factor=16.0)[..., :rows, :columns]

    image = torch.rand(1, 1, 301, 187, generator=torch.Generator().manual_seed(0))
    whole = network(image)
    on_the_grid = TiledInferer(**FACTS, halo=3, tile=100, grid=4)
    assert torch.equal(on_the_grid(image, network), whole)
    assert len(shapes) > 2
    assert not torch.equal(TiledInferer(**FACTS, halo=3, tile=99)(image, network), whole)


def seen_beside(image):
    """A network of three slices: the middle one enlarged, the one before counted once and the one after twice."""
    return Bicubic(4)(image[:, 1:2] + image[:, :1] + 2 * image[:, 2:])


def of_three(tile=None):
    return TiledInferer(**FACTS, halo=4, tile=tile, slices=3)


def test_the_slices_of_a_volume_are_each_others_neighbours():
    volume = torch.rand(2, 1, 12, 10, 4, generator=torch.Generator().manual_seed(0))
    result = of_three()(volume, seen_beside)
    assert result.shape == (2, 1, 48, 40, 4)
    for index, indices in enumerate(([0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3])):
        stack = volume[:, 0, ..., indices].movedim(-1, 1)
        torch.testing.assert_close(result[..., index], seen_beside(stack), rtol=0, atol=1e-5)


def test_a_slice_may_bring_its_neighbours_and_a_single_image_is_its_own():
    stack = torch.rand(2, 3, 170, 190, generator=torch.Generator().manual_seed(0))
    result = of_three(tile=64)(stack, seen_beside)
    assert result.shape == (2, 1, 680, 760)
    torch.testing.assert_close(result, seen_beside(stack), rtol=0, atol=1e-5)
    single = stack[:, :1]
    torch.testing.assert_close(of_three()(single, seen_beside), seen_beside(single.expand(-1, 3, -1, -1)))


def test_images_of_other_channels_are_refused():
    with pytest.raises(
        ValueError, match="the images have 2 channels, expected 1 or the 3 slices that the network sees"
    ):
        of_three()(torch.rand(1, 2, 16, 16), seen_beside)


def test_further_arguments_reach_the_network():
    def network(image, strength):
        return strength * Bicubic(4)(image)

    image = torch.rand(1, 1, 9, 9)
    torch.testing.assert_close(inferer()(image, network, strength=0.5), 0.5 * Bicubic(4)(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_smaller_tile_is_tried_when_memory_runs_out(error):
    def network(image):
        if image.shape[-1] > 170:
            raise error
        return Bicubic(4)(image)

    image = torch.rand(1, 1, 180, 180, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inferer(tile=256)(image, network), Bicubic(4)(image), rtol=0, atol=1e-6)


def test_an_error_of_the_network_is_not_taken_for_lack_of_memory():
    def network(image):
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        inferer()(torch.rand(1, 1, 16, 16), network)


OPERATOR = "bicubic_antialias_x4"
CONSISTENT = {**FACTS, "operator": OPERATOR, "halo": 4, "consistency": True}
PROJECT = DataConsistency(Degradation.parse(OPERATOR))


def hard_edges(*slices):
    """An input which only a result beyond 0 to 1 is exactly consistent with."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 2, (1, 1, 10, 12, *slices)).astype(np.float32))


def guess(image):
    return 0.5 * Bicubic(4)(image)


@pytest.mark.parametrize("slices", [(), (1,), (3,)])
def test_every_slice_is_made_consistent_with_its_own(slices):
    low = hard_edges(*slices)
    before = low.clone()
    result = TiledInferer(**CONSISTENT, levels=1400)(low, guess)
    assert result.dtype == torch.float32
    for index in np.ndindex(slices):
        image = low[(..., *index)].contiguous()
        expected = PROJECT(guess(image)[0, 0].numpy(), image[0, 0].numpy())
        np.testing.assert_array_equal(result[(0, 0, ..., *index)].numpy(), expected)
    assert torch.equal(low, before)


@pytest.mark.parametrize(
    ("limits", "levels", "expected"),
    [
        (None, 255, (0.0, 1.0)),
        (None, 1400, None),
        ([-0.25, 1.5], 255, (-0.25, 1.5)),
        ([-np.inf, np.inf], 255, None),
    ],
)
def test_the_limits_are_those_of_the_storage_else_those_of_the_levels(limits, levels, expected):
    image = MetaTensor(hard_edges()[0], meta={} if limits is None else {LIMITS: limits})
    plain = PROJECT(guess(image[None].as_tensor())[0, 0].numpy(), image[0].numpy())
    limited = PROJECT(guess(image[None].as_tensor())[0, 0].numpy(), image[0].numpy(), limits=expected)
    inferer = TiledInferer(**CONSISTENT, levels=levels)
    # As an application passes one image, and as a loader joins several.
    for batch in (image[None], list_data_collate([{"image": image}, {"image": image}])["image"]):
        for result in inferer(batch, guess):
            np.testing.assert_array_equal(result[0].numpy(), limited)
    assert (expected is None) == np.array_equal(limited, plain)


def test_an_operator_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="expected KERNEL_xSCALE"):
        TiledInferer(**CONSISTENT | {"operator": "guesswork"})
