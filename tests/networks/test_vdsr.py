import torch
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.networks.vdsr import VDSR

from tests.networks.measured import trained_like


@torch.inference_mode()
def test_the_network_makes_only_what_is_added_to_the_interpolation():
    network = trained_like(VDSR(channels=4, depth=3))
    image = torch.rand(1, 1, 9, 12)
    enlarged = Bicubic(4)(image)
    torch.testing.assert_close(network(image) - enlarged, network.residual(enlarged))
