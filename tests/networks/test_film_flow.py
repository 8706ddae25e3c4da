import onnxruntime
import pytest
import torch
from monai_sr_bundle.networks.edsr import MDSR
from monai_sr_bundle.networks.residual_flow import FilmFlow
from monai_sr_bundle.packing.onnx_export import TOLERANCE, export_parts
from monai_sr_bundle.training.weights import start_from
from torch.nn.functional import pixel_shuffle

from tests.families.stated import stated_family
from tests.networks.measured import Double, reach, reach_in_cells, trained_like, velocity_of

SMALL = {"channels": 8, "dilations": (1, 2), "flow_channels": 8, "flow_blocks": 1}
SCALES = (2, 3, 4)


def small(**options):
    torch.manual_seed(0)
    return trained_like(FilmFlow(**{**SMALL, **options}))


@torch.inference_mode()
def test_the_expected_image_is_that_of_mdsr_with_the_same_weights_to_the_bit(tmp_path, caplog):
    expected = trained_like(MDSR(channels=8, dilations=(1, 2)))
    torch.save(expected.state_dict(), tmp_path / "model.pt")
    network = start_from(FilmFlow(**SMALL), str(tmp_path / "model.pt")).eval()
    assert [record.message for record in caplog.records] == [f"{tmp_path / 'model.pt'} has no flow, which begins anew"]
    image = torch.rand(2, 1, 9, 14)
    for scale in SCALES:
        torch.testing.assert_close(network(image, scale), expected(image, scale), rtol=0, atol=0)
        condition = network.encode(image, scale)
        torch.testing.assert_close(pixel_shuffle(condition[:, :-1], scale), expected(image, scale), rtol=0, atol=0)
        torch.testing.assert_close(condition[:, -1:], image, rtol=0, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_the_network_looks_as_far_as_it_says(scale):
    network = small(scale=scale, flow_blocks=2).double()
    assert (network.receptive_radius, network.velocity_radius) == (9, 6)
    assert reach(Double(network), 32, 16, 15) == 9
    assert reach_in_cells(velocity_of(network), network.condition_channels, 19, 9) == 6


@pytest.mark.parametrize("scale", SCALES)
@torch.inference_mode()
def test_an_untrained_flow_goes_from_noise_to_residuals_of_the_usual_size(scale):
    network = FilmFlow()
    condition = network.encode(torch.rand(1, 1, 64, 64), scale)
    state = 0.5 * torch.randn(1, scale**2, 64, 64)
    torch.testing.assert_close(network.velocity(state, condition, torch.zeros(1)), -state)
    for step in range(64):
        state = state + network.velocity(state, condition, torch.full((1,), step / 64)) / 64
    assert state.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("scale", SCALES)
@torch.inference_mode()
def test_the_target_added_to_the_expected_image_is_the_original(scale):
    network, image, high = small(), torch.rand(2, 1, 6, 8), torch.rand(2, 1, 6 * scale, 8 * scale)
    residual = network.target(high, network.encode(image, scale))
    assert residual.shape == (2, scale**2, 6, 8)
    torch.testing.assert_close(network(image, scale) + pixel_shuffle(residual, scale), high)


@pytest.mark.parametrize("scale", SCALES)
@torch.inference_mode()
def test_the_velocity_follows_state_condition_and_time_of_each_image_of_a_batch(scale):
    network, channels = small().double(), scale**2  # in single precision, processors group sums in different ways
    state, condition = torch.randn(2, channels, 5, 6).double(), torch.rand(2, channels + 1, 5, 6).double()
    time = torch.tensor([0.2, 0.9], dtype=torch.float64)
    both = network.velocity(state, condition, time)
    for index in range(2):
        one = slice(index, index + 1)
        torch.testing.assert_close(network.velocity(state[one], condition[one], time[one]), both[one])
    for changed in ((state + 1, condition, time), (state, condition + 1, time), (state, condition, time.flip(0))):
        assert (network.velocity(*changed) - both).abs().max() > 1e-2


def test_the_scales_share_the_body_and_have_ends_of_their_own():
    network = small()
    network.velocity(torch.randn(1, 9, 8, 8), torch.rand(1, 10, 8, 8), torch.rand(1)).square().mean().backward()
    moved = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    assert moved == {
        name
        for name, _ in network.named_parameters()
        if name.startswith(("flow.embed", "flow.body", "flow.heads.x3", "flow.tails.x3"))
    }


@pytest.mark.parametrize("scale", SCALES)
def test_the_export_writes_both_networks_of_a_scale(tmp_path, scale):
    network = small(scale=scale)
    differences = export_parts(network, stated_family("flow", scale=scale, operator=f"area_x{scale}"), tmp_path)
    assert list(differences) == ["model.onnx", "velocity.onnx"]
    assert all(0 <= difference < TOLERANCE for difference in differences.values())
    session = onnxruntime.InferenceSession(str(tmp_path / "velocity.onnx"), providers=["CPUExecutionProvider"])
    given = {
        "state": torch.randn(3, scale**2, 17, 8),
        "condition": torch.rand(3, scale**2 + 1, 17, 8),
        "time": torch.linspace(0, 1, 3),
    }
    with torch.inference_mode():
        expected = network.velocity(*given.values())
    (velocity,) = session.run(["velocity"], {name: value.numpy() for name, value in given.items()})
    torch.testing.assert_close(torch.from_numpy(velocity), expected, atol=1e-4, rtol=0)
