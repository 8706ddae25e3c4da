import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.srcnn import SRCNN


@torch.inference_mode()
def test_the_kernels_lie_on_the_pixels_they_sharpen():
    """With kernels that only pass their middle on, the bicubic image comes out."""
    network = SRCNN(channels=(1, 1))
    for layer in (network.extract, network.map, network.reconstruct):
        layer.weight.zero_()
        layer.weight[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
        layer.bias.zero_()
    image = torch.rand(1, 1, 9, 12) + 1  # nothing for a ReLU to cut
    torch.testing.assert_close(network(image), Bicubic(4)(image))
