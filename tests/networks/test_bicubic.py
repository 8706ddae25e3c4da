import pytest
import torch
from monai_sr_bundle.networks.bicubic import Bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_phases_give_the_same_numbers_as_interpolation(scale):
    image = torch.rand(2, 1, 13, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(image, scale_factor=float(scale), mode="bicubic", align_corners=False)
    torch.testing.assert_close(Bicubic(scale)(image), expected, atol=2e-6, rtol=0)


def test_nothing_is_stored_in_a_checkpoint():
    assert Bicubic(4).state_dict() == {}


def test_half_precision_does_not_round_what_detail_is_added_to():
    enlarge = Bicubic(4)
    image = torch.rand(1, 1, 13, 9, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        enlarged = enlarge(image)
        assert torch.nn.Conv2d(1, 1, 1)(image).dtype == torch.bfloat16  # as it is without care
    assert enlarged.dtype == torch.float32
    torch.testing.assert_close(enlarged, enlarge(image), atol=0, rtol=0)
