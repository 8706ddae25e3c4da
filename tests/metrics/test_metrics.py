import numpy as np
import pytest
import torch
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.metrics import lpips
from monai_sr_bundle.metrics.fidelity import PSNR, SSIM, as_stored
from monai_sr_bundle.metrics.ms_ssim import MSSSIM
from monai_sr_bundle.metrics.uqi import UQI
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


@pytest.fixture(scope="module")
def pair():
    target = torch.from_numpy(draw_phantom(192))[None, None]
    noise = 0.03 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    return as_stored(target + noise), as_stored(target)


def of_skimage(function, pair, **options):
    pred, target = (image[0, 0].double().numpy() for image in pair)
    return function(target, pred, data_range=1.0, **options)


def test_what_is_measured_is_the_stored_image():
    image = torch.tensor([-0.2, 0.4999, 1.3])
    torch.testing.assert_close(as_stored(image, levels=255), torch.tensor([0.0, 127 / 255, 1.0]))


def test_psnr_agrees_with_scikit_image(pair):
    assert PSNR()(*pair).item() == pytest.approx(of_skimage(peak_signal_noise_ratio, pair), abs=1e-4)


def test_psnr_is_taken_per_image_and_then_averaged(pair):
    pred, target = pair
    other = as_stored(target + 0.1)
    both = PSNR()(torch.cat([pred, other]), torch.cat([target, target]))
    torch.testing.assert_close(both, torch.cat([PSNR()(pred, target), PSNR()(other, target)]))


def test_equal_images_have_the_psnr_of_rounding_not_infinity(pair):
    assert PSNR()(pair[1], pair[1]).item() == pytest.approx(10 * np.log10(12 * 255**2), abs=1e-3)


def test_ssim_agrees_with_scikit_image(pair):
    # scikit-image averages over positions where the window is inside the image, as we do (a border of 5 pixels).
    pred, target = (image[0, 0].double().numpy() for image in pair)
    _, full = structural_similarity(
        target, pred, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert SSIM()(*pair).item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=3e-5)


def test_ms_ssim_is_the_product_over_five_scales(pair):
    pred, target = (image.double() for image in pair)
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        contrast, full = _similarity(pred, target)
        expected *= (full if scale == 4 else contrast) ** weight
        pred, target = (torch.nn.functional.avg_pool2d(image, 2) for image in (pred, target))
    assert MSSSIM()(*pair).item() == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_of_a_small_image_is_not_a_number(pair):
    small = [image[..., :175, :] for image in pair]
    assert torch.isnan(MSSSIM()(*small))
    assert MSSSIM()(*(image[..., :176, :176] for image in pair)).item() > 0


def _similarity(pred, target):
    """Mean contrast-structure term and mean SSIM of Wang 2003, written from the paper with scipy-free numpy."""
    x = np.arange(-5, 6)
    line = np.exp(-(x**2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(line, line) / line.sum() ** 2)[None, None]

    def local(image):
        return torch.nn.functional.conv2d(image, window)

    mean_p, mean_t = local(pred), local(target)
    var_p, var_t = local(pred**2) - mean_p**2, local(target**2) - mean_t**2
    covariance = local(pred * target) - mean_p * mean_t
    contrast = (2 * covariance + 0.03**2) / (var_p + var_t + 0.03**2)
    luminance = (2 * mean_p * mean_t + 0.01**2) / (mean_p**2 + mean_t**2 + 0.01**2)
    return float(contrast.mean()), float((luminance * contrast).mean())


def test_uqi_is_scikit_images_ssim_without_constants(pair):
    # An odd window, because scikit-image has no other; no background, because it has no mask.
    window = 7
    pred, target = (image[0, 0].double().numpy() for image in pair)
    _, full = structural_similarity(
        target, pred, data_range=1.0, win_size=window, K1=1e-9, K2=1e-9, use_sample_covariance=False, full=True
    )
    inner = full[3:-3, 3:-3]
    varied = torch.nn.functional.unfold(pair[1].double(), window).var(dim=1, unbiased=False).reshape(inner.shape) > 1e-9
    assert UQI(window=window, background=-1.0)(*pair).item() == pytest.approx(inner[varied.numpy()].mean(), abs=1e-4)


def test_uqi_leaves_out_the_air_around_the_body(pair):
    pred, target = (torch.nn.functional.pad(image, (0, 0, 64, 0)) for image in pair)
    target[..., :40, ::2] = 1 / 255
    clean = UQI()(pred, target).item()
    pred[..., :40, 1::2] = 3 / 255  # a quality below zero there, if the air counted
    assert UQI()(pred, target).item() == pytest.approx(clean, abs=1e-6)
    assert UQI(background=-1.0)(pred, target).item() < clean - 0.1


def test_uqi_of_an_empty_picture_is_not_a_number():
    empty = torch.zeros(1, 1, 32, 32)
    assert torch.isnan(UQI()(empty, empty))


def test_hounsfield_steps_are_finer_than_grey_levels(pair):
    pred, target = pair[1] + 1 / 1400, pair[1]
    assert PSNR(levels=255)(pred, target).item() == pytest.approx(58.9, abs=0.1)
    assert PSNR(levels=1400)(pred, target).item() == pytest.approx(20 * np.log10(1400), abs=0.3)


def test_lpips_is_that_of_the_package(pair):
    torch.manual_seed(0)
    ours = LPIPS_random()
    pred, target = (2 * image.repeat(1, 3, 1, 1) - 1 for image in pair)
    with torch.no_grad():
        expected = ours.network(pred, target).item()
    assert ours(*pair).item() == pytest.approx(expected, abs=1e-6)
    assert expected > 0


def LPIPS_random():
    return lpips.LPIPS(random_backbone=True)


def test_lpips_without_its_weights_is_unavailable_and_never_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "alexnet-owt-7be5be79.pth is not in" in lpips.why_unavailable()
    with pytest.raises(RuntimeError, match="LPIPS is unavailable.*not replaced by another number"):
        lpips.LPIPS()
    assert list(tmp_path.rglob("*.pth")) == []


def test_lpips_without_the_package_is_unavailable(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert lpips.why_unavailable() == "the package lpips is not installed (extra [metrics])"


def test_lpips_is_available_where_the_backbone_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / lpips.BACKBONE).touch()
    assert lpips.why_unavailable() is None
