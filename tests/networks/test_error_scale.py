import pytest
import torch
from monai_sr_bundle.networks.error_scale import FLOOR, ErrorScale
from monai_sr_bundle.packing.onnx_export import End, export_onnx
from monai_sr_bundle.uncertainty.error_bars import HALO

from tests.networks.measured import reach_in_cells, trained_like


@pytest.mark.parametrize("scale", [2, 4])
@torch.inference_mode()
def test_every_pixel_of_the_result_has_a_scale_above_zero(scale):
    error_scale = trained_like(ErrorScale(scale))(100 * torch.randn(2, scale**2 + 1, 9, 14))
    assert error_scale.shape == (2, 1, 9 * scale, 14 * scale)
    assert error_scale.min() >= FLOOR > 0


@torch.inference_mode()
def test_an_untrained_network_begins_near_a_hundredth_of_the_window():
    torch.manual_seed(0)
    error_scale = ErrorScale()(torch.rand(1, 17, 16, 16))
    assert 0.003 < error_scale.min() < error_scale.max() < 0.01


def test_a_cell_beyond_the_receptive_radius_changes_nothing():
    network = trained_like(ErrorScale()).double()
    assert reach_in_cells(network, 17, 24, 12) == ErrorScale.receptive_radius == HALO


def test_onnx_gives_the_same_scale(tmp_path):
    # On sizes other than the exported one; the scales are hundredths.
    difference = export_onnx(trained_like(ErrorScale(2)), tmp_path / "scale.onnx", [End("cells", 5)], "scale")
    assert difference < 1e-6
