import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.srgan_vdsr import SRGANVDSR
from torch.nn.functional import conv2d

from tests.networks.measured import trained_like


def small():
    torch.manual_seed(0)
    return SRGANVDSR(channels=8, blocks=2, depth=3)


def test_a_result_lies_in_the_open_range():
    result = small()(torch.rand(2, 1, 7, 11))
    assert 0 < result.min() < result.max() < 1


def test_the_sharpening_is_fixed_and_in_no_checkpoint():
    network = small()
    assert not network.sharpening.requires_grad
    assert "sharpening" not in dict(network.named_parameters())
    assert [name for name in network.state_dict() if "sharpening" in name] == []


@torch.inference_mode()
def test_each_third_of_the_features_is_averaged_and_sharpened():
    network = trained_like(small())
    image = torch.rand(1, 1, 9, 7)
    features = network.head(2 * Bicubic(2)(image) - 1)
    features = features + network.body(features)
    means = torch.stack([features[:, third].mean(dim=1) for third in (slice(0, 3), slice(3, 6), slice(6, 8))], dim=1)
    kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]])
    sharpened = torch.tanh(conv2d(means, kernel.expand(3, 1, 3, 3), padding=1, groups=3))
    expected = (torch.tanh(network.tail(network.enlarge(sharpened))) + 1) / 2
    torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=0)
