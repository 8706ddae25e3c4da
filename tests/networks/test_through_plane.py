import numpy as np
import onnxruntime
import pytest
import torch

from monai_sr_bundle.inferers.interpolate import cubic_slice
from monai_sr_bundle.networks.through_plane import CubicRows, ThroughPlane
from monai_sr_bundle.packing.onnx_export import export_onnx


def trained_like(scale=4):
    """A network whose weights are all away from their special starting values, so that a comparison can fail."""
    torch.manual_seed(0)
    network = ThroughPlane(scale, channels=8, blocks=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
@torch.inference_mode()
def test_rows_are_enlarged_and_columns_are_not(scale):
    assert ThroughPlane(scale, channels=4, blocks=1)(torch.rand(2, 1, 5, 9)).shape == (2, 1, 5 * scale, 9)


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_the_skip_is_the_cubic_interpolation_along_the_slices_of_the_report(scale):
    volume = np.random.default_rng(0).random((6, 1, 9), dtype=np.float32)
    expected = [cubic_slice(lambda index: volume[index], 6, part, scale)[0] for part in range(6 * scale)]
    made = CubicRows(scale)(torch.from_numpy(volume[:, 0])[None, None])[0, 0]
    np.testing.assert_allclose(made.numpy(), np.stack(expected), rtol=0, atol=1e-6)


def test_an_untrained_network_is_almost_cubic():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 8, 16)
    assert (ThroughPlane()(image) - CubicRows(4)(image)).abs().max() < 0.05


@torch.inference_mode()
def test_a_pixel_beyond_the_receptive_radius_changes_nothing():
    network = trained_like()
    image = torch.rand(1, 1, 32, 32)
    changed = image.clone()
    changed[..., 16, 15] += 1.0
    moved = (network(changed) - network(image)).abs()[0, 0] > 1e-6
    rows, columns = (moved.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    radius = network.receptive_radius
    assert radius == 7
    assert (rows.min(), rows.max()) == (4 * (16 - radius), 4 * (16 + radius) + 3)
    assert (columns.min(), columns.max()) == (15 - radius, 15 + radius)


@torch.inference_mode()
def test_torchscript_and_onnx_give_the_same_output(tmp_path):
    network = trained_like()
    image = torch.rand(2, 1, 9, 14)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))
    assert export_onnx(network, tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], network(image).numpy(), atol=1e-4)


def test_the_default_size_is_the_one_on_the_card():
    assert sum(p.numel() for p in ThroughPlane().parameters()) == 121_700


@pytest.mark.parametrize("scale", [1, 6])
def test_another_factor_is_refused(scale):
    with pytest.raises(ValueError, match=f"scale is {scale}, expected a whole number from 2 to 5"):
        ThroughPlane(scale)


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="blocks is 0 and channels 8"):
        ThroughPlane(channels=8, blocks=0)
