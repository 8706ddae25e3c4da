import torch
from monai_sr_bundle.networks.esrgan import RRDBNet

from tests.networks.measured import trained_like


@torch.inference_mode()
def test_a_dense_block_adds_a_fifth_of_its_last_layer_on_all_before_it():
    block = trained_like(RRDBNet(channels=4, growth=2, blocks=1)).body[0].blocks[0]
    features = torch.rand(1, 4, 6, 5)
    before = features.clone()
    outputs = [features]
    for layer in block.layers[:4]:
        outputs.append(torch.nn.functional.leaky_relu(layer(torch.cat(outputs, dim=1)), 0.2))
    torch.testing.assert_close(block(features), features + 0.2 * block.layers[4](torch.cat(outputs, dim=1)))
    assert torch.equal(features, before)
