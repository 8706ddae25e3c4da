import math

import numpy as np
import pytest
import torch
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.metrics.box_fidelity import box_mask, box_psnr, box_ssim
from monai_sr_bundle.metrics.fidelity import PSNR, SSIM, as_stored
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

BOX = np.array([[20, 30, 60, 50]])
WHOLE = np.array([[0, 0, 96, 96]])


@pytest.fixture(scope="module")
def pair():
    target = as_stored(torch.from_numpy(draw_phantom(96))[None, None])
    noise = 0.03 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    return as_stored(target + noise), target


def arrays(pair):
    return [image[0, 0].double().numpy() for image in pair]


def test_a_box_covers_the_pixels_whose_centre_it_holds():
    mask = box_mask(np.array([[1.0, 0.6, 2.5, 2.0]]), 4, 5)
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[1:2, 1:2] = True
    assert torch.equal(mask, expected)


def test_boxes_in_whole_pixels_are_slices_and_overlap_counts_once():
    mask = box_mask(np.array([[0, 0, 2, 2], [1, 1, 3, 3], [9, 9, 99, 99]]), 10, 10)
    assert mask.sum() == 4 + 4 - 1 + 1


def test_psnr_in_a_box_is_that_of_its_pixels(pair):
    pred, target = (image[30:50, 20:60] for image in arrays(pair))
    assert box_psnr(*pair, BOX) == pytest.approx(peak_signal_noise_ratio(target, pred, data_range=1.0), abs=1e-4)


def test_psnr_of_a_known_error():
    target = torch.zeros(1, 1, 20, 20)
    pred = target.clone()
    pred[..., :10, :10] = 51 / 255  # 0.2 in a quarter of the box
    assert box_psnr(pred, target, np.array([[0, 0, 20, 20]])) == pytest.approx(-10 * math.log10(0.04 / 4), abs=1e-5)
    assert box_psnr(pred, target, np.array([[10, 0, 20, 20]])) == pytest.approx(10 * math.log10(12 * 255**2))


def test_ssim_in_a_box_is_the_mean_of_scikit_images_map(pair):
    pred, target = arrays(pair)
    _, full = structural_similarity(
        target, pred, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert box_ssim(*pair, BOX) == pytest.approx(full[30:50, 20:60].mean(), abs=3e-5)


def test_a_box_around_everything_gives_the_figures_of_the_image(pair):
    assert box_psnr(*pair, WHOLE) == pytest.approx(PSNR()(*pair).item(), abs=1e-4)
    assert box_ssim(*pair, WHOLE) == pytest.approx(SSIM()(*pair).item(), abs=1e-6)


def test_an_image_without_a_box_has_neither_figure(pair):
    none = np.zeros((0, 4))
    assert math.isnan(box_psnr(*pair, none))
    assert math.isnan(box_ssim(*pair, none))


def test_a_box_at_the_very_border_has_no_whole_window(pair):
    edge = np.array([[0, 0, 5, 96]])
    assert math.isnan(box_ssim(*pair, edge))
    assert box_psnr(*pair, edge) > 20
