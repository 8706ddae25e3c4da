import pytest
import torch
from monai_sr_bundle.networks.film_error_scale import FLOOR, FilmErrorScale
from monai_sr_bundle.packing.onnx_export import End, export_onnx
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.error_bars import error_bar_halo
from torch import nn

from tests.networks.measured import reach_in_cells, trained_like

MEASURES = {0: (0.8, -15.0, 0.3, -17.0), 12: (*range(-3, -15, -1), 0.3)}
"""Measures of a film, by the bands of the network that sees them."""


@pytest.fixture(params=MEASURES)
def bands(request: pytest.FixtureRequest) -> int:
    return request.param


def inputs(bands: int, scale: int, rows: int, columns: int) -> torch.Tensor:
    torch.manual_seed(0)
    measures = torch.tensor(MEASURES[bands]).reshape(1, -1, 1, 1).expand(1, -1, rows, columns)
    return torch.cat((torch.rand(1, scale**2 + 1, rows, columns), measures), dim=1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.inference_mode()
def test_one_set_of_weights_gives_a_scale_above_zero_at_every_factor(bands, scale):
    network = trained_like(FilmErrorScale(bands=bands))
    other = FilmErrorScale(scale=scale, bands=bands)
    other.load_state_dict(network.state_dict())
    error_scale = other(inputs(bands, scale, 20, 14))
    assert error_scale.shape == (1, 1, 20 * scale, 14 * scale)
    assert error_scale.min() >= FLOOR > 0
    torch.testing.assert_close(error_scale, network(inputs(bands, scale, 20, 14), scale), rtol=0, atol=0)


@torch.inference_mode()
def test_every_measure_of_the_whole_image_counts(bands):
    network, cells = trained_like(FilmErrorScale(bands=bands)), inputs(bands, 4, 24, 24)
    assert network.measures == len(MEASURES[bands])
    for measure in range(17, cells.shape[1]):
        other = cells.clone()
        other[:, measure] += 0.2
        assert (network(other) - network(cells)).abs().max() > 1e-5


def test_the_network_looks_as_far_as_model_yaml_states(bands):
    class WithMeasures(nn.Module):
        """The network for images alone, whose measures stay as they are."""

        def __init__(self) -> None:
            super().__init__()
            self.network = trained_like(FilmErrorScale(bands=bands))

        def forward(self, cells: torch.Tensor) -> torch.Tensor:
            return self.network(torch.cat((cells, torch.ones_like(cells[:, : self.network.measures])), dim=1))

    assert reach_in_cells(WithMeasures().double(), 17, 40, 20) == FilmErrorScale(bands=bands).receptive_radius
    for bundle in ("chest_xray_blind", "chest_ct_blind"):
        assert error_bar_halo(find_bundle(bundle)) == FilmErrorScale(bands=bands).receptive_radius


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.inference_mode()
def test_no_grid_lies_over_error_bars_where_an_image_is_even(bands, scale):
    even = inputs(bands, scale, 24, 24)
    even[:, : scale**2 + 1] = 0.5
    far_from_edges = trained_like(FilmErrorScale(scale=scale, bands=bands))(even)[
        ..., 12 * scale : -12 * scale, 12 * scale : -12 * scale
    ]
    torch.testing.assert_close(far_from_edges, far_from_edges.mean().expand_as(far_from_edges), rtol=1e-5, atol=0)


def test_a_scale_that_the_weights_do_not_have_is_refused():
    with pytest.raises(ValueError, match=r"scale is 5, expected one of \(2, 3, 4\)"):
        FilmErrorScale(scale=5)


def test_onnx_gives_the_same_scale(tmp_path, bands):
    network = trained_like(FilmErrorScale(scale=2, bands=bands))
    assert export_onnx(network, tmp_path / "scale.onnx", [End("cells", 5 + network.measures)], "scale") < 1e-5
