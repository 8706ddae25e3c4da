import onnxruntime
import pytest
import torch
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.packing.onnx_export import TOLERANCE, export_parts
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle
from monai_sr_bundle.training.weights import start_from
from torch.nn.functional import pixel_shuffle

from tests.families.stated import stated_family
from tests.networks.measured import Double, reach, reach_in_cells, trained_like, velocity_of, without_gradient

SIZE = {"channels": 8, "blocks": 1, "refinement": 1, "flow_channels": 8, "flow_blocks": 1}


def small(**options):
    torch.manual_seed(0)
    return trained_like(ResidualFlow(**{**SIZE, **options}))


class _Artifacts(Double):
    """The mask in float64."""

    def forward(self, image):
        return self.network.artifacts(image.double())


@torch.inference_mode()
def test_an_untrained_flow_stands_still():
    network = ResidualFlow()
    condition = network.encode(torch.rand(2, 1, 12, 16))
    assert not network.velocity(torch.randn(2, 16, 12, 16), condition, torch.tensor([0.0, 1.0])).any()


@pytest.mark.parametrize(
    ("options", "radius"),
    [({}, 7), ({"blocks": 2, "refinement": 0}, 7), ({"flow_blocks": 4}, 10), ({"scale": 2}, 7), ({"mirror": True}, 7)],
)
def test_the_network_looks_as_far_as_it_says(options, radius):
    network = small(**options).double()
    assert network.receptive_radius == radius
    expected = reach(Double(network), 2 * radius + 3, radius + 1, radius + 1)
    cells = reach_in_cells(velocity_of(network), network.condition_channels, 2 * radius + 3, radius + 1)
    assert max(expected, cells) == radius
    assert cells == network.velocity_radius == 2 * {**SIZE, **options}["flow_blocks"] + 2


@pytest.mark.parametrize("slices", [1, 3])
@torch.inference_mode()
def test_the_target_added_to_the_expected_image_is_the_original(slices):
    network, image, high = small(slices=slices), torch.rand(2, slices, 6, 8), torch.rand(2, 1, 24, 32)
    condition = network.encode(image)
    assert condition.shape == (2, network.condition_channels, 6, 8)
    torch.testing.assert_close(condition[:, -slices:], image)
    residual = network.target(high, condition)
    assert residual.shape == (2, network.channels, 6, 8)
    torch.testing.assert_close(network(image) + pixel_shuffle(residual, 4), high)


@torch.inference_mode()
def test_the_velocity_follows_state_condition_and_time_of_each_image_of_a_batch():
    network = small()
    state, condition, time = torch.randn(2, 16, 5, 6), torch.rand(2, 17, 5, 6), torch.tensor([0.2, 0.9])
    both = network.velocity(state, condition, time)
    for index in range(2):
        one = slice(index, index + 1)
        torch.testing.assert_close(network.velocity(state[one], condition[one], time[one]), both[one])
    for changed in ((state + 1, condition, time), (state, condition + 1, time), (state, condition, time.flip(0))):
        assert (network.velocity(*changed) - both).abs().max() > 1e-2


def test_every_parameter_is_moved_by_one_of_the_two_networks():
    network = small()
    of_image = without_gradient(network, torch.rand(1, 1, 8, 8))
    assert of_image
    assert all(name.startswith("flow.") for name in of_image)
    network.velocity(torch.randn(1, 16, 8, 8), torch.rand(1, 17, 8, 8), torch.rand(1)).square().mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in network.parameters())


def test_the_export_writes_both_networks_and_the_velocity_takes_any_batch_and_size(tmp_path):
    network = small()
    differences = export_parts(network, stated_family("flow"), tmp_path)
    assert list(differences) == ["model.onnx", "velocity.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(differences)
    assert all(0 <= difference < TOLERANCE for difference in differences.values())
    session = onnxruntime.InferenceSession(str(tmp_path / "velocity.onnx"), providers=["CPUExecutionProvider"])
    for batch, rows, columns in ((1, 3, 5), (3, 17, 8)):
        given = {
            "state": torch.randn(batch, 16, rows, columns),
            "condition": torch.rand(batch, 17, rows, columns),
            "time": torch.linspace(0, 1, batch),
        }
        with torch.inference_mode():
            expected = network.velocity(*given.values())
        (velocity,) = session.run(["velocity"], {name: value.numpy() for name, value in given.items()})
        torch.testing.assert_close(torch.from_numpy(velocity), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_what_is_made_of_a_mirrored_image_is_mirrored():
    network, image = small(mirror=True), torch.rand(2, 1, 9, 14)
    once = small()
    expected = (once(image) + once(image.flip(-1)).flip(-1)) / 2
    torch.testing.assert_close(network(image), expected)
    torch.testing.assert_close(network(image.flip(-1)), expected.flip(-1))
    assert (once(image) - expected).abs().max() > 1e-2
    assert (network.encode(image)[:, :-1] - once.encode(image)[:, :-1]).abs().max() > 1e-2
    torch.testing.assert_close(network.train()(image), once(image))  # what learns need not do everything twice


@torch.inference_mode()
def test_it_begins_with_the_weights_of_edsr_and_almost_with_its_image(caplog):
    weights = configs_dir() / "chest_xray_edsr_x4" / "model.pt"
    torch.manual_seed(0)
    network = start_from(ResidualFlow(), str(weights)).eval()
    assert [record.message for record in caplog.records] == [
        f"{weights} has no flow, which begins anew",
        f"{weights} has no refine, which begins anew",
    ]
    image = torch.from_numpy(draw_phantom(48)[None, None])
    expected = load_network(find_bundle("chest_xray_edsr_x4"))[0](image)
    added = (expected - Bicubic(4)(image)).square().mean().sqrt()
    assert (network(image) - expected).square().mean().sqrt() < 0.3 * added
    torch.testing.assert_close(start_from(ResidualFlow(refinement=0), str(weights))(image), expected)


@torch.inference_mode()
def test_of_several_slices_the_middle_one_is_enlarged_and_the_others_are_seen():
    torch.manual_seed(0)
    untrained, image = ResidualFlow(slices=3), torch.rand(2, 3, 12, 16)
    torch.testing.assert_close(untrained(image), Bicubic(4)(image[:, 1:2]), atol=0.05, rtol=0)
    network = small(slices=3)
    condition = network.encode(image)
    assert condition.shape == (2, network.condition_channels, 12, 16) == (2, 19, 12, 16)
    torch.testing.assert_close(condition[:, 16:], image)
    before, after, time = image.clone(), image.clone(), torch.full((2,), 0.3)
    before[:, 0] += 0.1
    after[:, 2] += 0.1
    for changed in (before, after):
        assert (network(changed) - network(image)).abs().max() > 1e-2
        stack = torch.cat((condition[:, :16], changed), dim=1)
        state = torch.zeros(2, 16, 12, 16)
        assert (network.velocity(state, stack, time) - network.velocity(state, condition, time)).abs().max() > 1e-2
    assert (network(before) - network(after)).abs().max() > 1e-2


@torch.inference_mode()
def test_onnx_and_torchscript_of_several_slices_agree(tmp_path):
    network = small(slices=3)
    assert max(export_parts(network, stated_family("flow", slices=3), tmp_path).values()) < TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    image = torch.rand(2, 3, 9, 14)
    expected = network(image)
    torch.testing.assert_close(torch.jit.script(network)(image), expected)
    (pred,) = session.run(["pred"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(pred), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_flow_of_several_slices_begins_with_one_of_single_slices(tmp_path):
    single, image = small(), torch.rand(1, 3, 8, 9)
    torch.save(single.state_dict(), tmp_path / "model.pt")
    network = start_from(ResidualFlow(**SIZE, slices=3), str(tmp_path / "model.pt")).eval()
    torch.testing.assert_close(network(image), single(image[:, 1:2]))
    state, time = torch.randn(1, 16, 8, 9), torch.tensor([0.4])
    expected = single.velocity(state, single.encode(image[:, 1:2]), time)
    torch.testing.assert_close(network.velocity(state, network.encode(image), time), expected)


@torch.inference_mode()
def test_a_mask_leaves_the_names_and_numbers_of_the_network_as_they_are():
    networks = []
    for options in ({}, {"mask": True}):
        torch.manual_seed(0)
        networks.append(ResidualFlow(**SIZE, **options).eval())
    without, finding = networks
    state = finding.state_dict()
    assert set(state) - set(without.state_dict()) == {"mask.weight", "mask.bias"}
    for name, value in without.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)
    image = torch.rand(2, 1, 9, 12)
    expected, logits = finding.with_mask(image)
    for enlarged in (finding(image), expected):
        torch.testing.assert_close(enlarged, without(image), rtol=0, atol=0)
    assert logits.shape == (2, 1, 9, 12)
    torch.testing.assert_close(finding.artifacts(image), logits.sigmoid())


def test_the_mask_looks_no_further_than_the_expected_image_and_is_exported(tmp_path):
    finding = small(mask=True)
    radius = finding.receptive_radius
    assert reach(_Artifacts(finding.double()), 2 * radius + 3, radius + 1, radius + 1) == radius
    family = stated_family("flow", network_def={"mask": True})
    differences = export_parts(finding.float(), family, tmp_path)
    assert list(differences) == ["model.onnx", "velocity.onnx", "artifacts.onnx"]
    assert max(differences.values()) < TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "artifacts.onnx", providers=["CPUExecutionProvider"])
    assert [[end.name for end in ends] for ends in (session.get_inputs(), session.get_outputs())] == [
        ["image"],
        ["artifacts"],
    ]
