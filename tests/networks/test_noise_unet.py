import pytest
import torch
from monai_sr_bundle.networks.noise_unet import NoiseUNet

from tests.networks.measured import reach_in_cells, trained_like


def small(channels=(8, 8), blocks=1, **options):
    torch.manual_seed(0)
    return trained_like(NoiseUNet(3, 2, channels, blocks, **options))


def cells(rows=8, columns=12, batch=2):
    return torch.randn(batch, 3, rows, columns, generator=torch.Generator().manual_seed(1))


def level(*values):
    return torch.tensor(values or (0.3, 0.9))


@pytest.mark.parametrize(("channels", "grid"), [((8,), 1), ((8, 4), 2), ((4, 8, 4), 4)])
@torch.inference_mode()
def test_every_cell_gets_a_prediction(channels, grid):
    network = small(channels, blocks=2)
    assert network.grid == grid
    assert network(cells(), level()).shape == (2, 2, 8, 12)


@pytest.mark.parametrize("size", [(10, 12), (12, 10)])
def test_a_size_that_cannot_be_halved_is_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} cells, expected multiples of 4, which the U-Net halves"):
        small((4, 4, 4))(cells(*size), level())


@pytest.mark.parametrize(("channels", "blocks"), [((4,), 1), ((4,), 3), ((4, 4), 1), ((4, 4), 4), ((4, 4, 4), 2)])
def test_the_network_looks_as_far_as_it_says(channels, blocks):
    network = small(channels, blocks).double()
    grid, radius = network.grid, network.receptive_radius
    middle = -(-(radius + 1) // grid) * grid
    distances = [
        reach_in_cells(lambda c: network(c, level(0.5).double()), 3, 2 * middle + grid, middle + offset)
        for offset in range(grid)
    ]
    # Cells are seen from every place in the coarsest one but none; the radius may be too large by less than that.
    assert radius - grid < max(distances) <= radius


@torch.inference_mode()
def test_a_prediction_moves_with_its_surroundings_by_multiples_of_the_grid():
    network = small((4, 4, 4)).double()
    radius, image = network.receptive_radius, cells(8, 128, 1).double()
    first = network(image[..., :120], level(0.5).double())
    inner = slice(radius + 4, 120 - radius)
    for step in range(1, 5):
        moved = network(image[..., step : step + 120], level(0.5).double())
        difference = (moved[..., inner] - first.roll(-step, dims=-1)[..., inner]).abs()
        same = difference[..., : -step - 4].max() < 1e-12
        assert same == (step == 4)


@torch.inference_mode()
def test_the_prediction_depends_on_the_level_of_its_own_image():
    network = small()
    one = cells(batch=1)
    both = network(one.expand(2, -1, -1, -1), level(0.3, 0.9))
    assert (both[0] - both[1]).abs().max() > 0.1
    torch.testing.assert_close(both[1:], network(one, level(0.9)))


@torch.inference_mode()
def test_with_normalisation_every_cell_depends_on_all():
    network = small((4,), groups=2)
    assert sum(isinstance(layer, torch.nn.GroupNorm) for layer in network.modules()) == 2 * 2 + 1
    before = cells(32, 32, 1)
    after = before.clone()
    after[..., 0, 0] += 10.0
    change = (network(after, level(0.5)) - network(before, level(0.5))).abs()
    assert change[..., 2 * network.receptive_radius :, :].min() > 0


@torch.inference_mode()
def test_attention_is_what_the_bottom_sees_of_all_other_cells():
    network = small(groups=2, attention=True)
    assert network.attention.attend.num_heads == 1
    features = cells(4, 4).repeat(1, 3, 1, 1)[:, :8]
    attended = network.attention(features)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    mixed = features.flatten(2)[..., order].unflatten(2, (4, 4))
    # Alike for every order of the cells, so that it needs no position; and more than the skip beside it.
    torch.testing.assert_close(network.attention(mixed).flatten(2), attended.flatten(2)[..., order])
    assert (attended - features).abs().max() > 1e-2
    assert network(cells(), level()).shape == (2, 2, 8, 12)


@pytest.mark.parametrize("options", [{}, {"groups": 2, "attention": True}])
def test_every_parameter_is_trained(options):
    network = small((4, 8, 4), 2, **options).train()
    network(cells(), level()).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []
