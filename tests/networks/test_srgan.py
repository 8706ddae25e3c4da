import torch
from monai_sr_bundle.networks.srgan import SRResNet

from tests.networks.measured import trained_like


@torch.inference_mode()
def test_the_inside_works_from_minus_one_to_one():
    """With a last convolution of nothing the middle of the range comes out."""
    network = trained_like(SRResNet(channels=4, blocks=1))
    network.tail.weight.zero_()
    network.tail.bias.zero_()
    torch.testing.assert_close(network(torch.rand(1, 1, 5, 6)), torch.full((1, 1, 20, 24), 0.5))
    inputs_of_head = []
    network.head.register_forward_pre_hook(lambda layer, inputs: inputs_of_head.append(inputs[0]))
    network(torch.tensor([[[[0.0, 1.0]]]]))
    assert inputs_of_head[0].flatten().tolist() == [-1.0, 1.0]
