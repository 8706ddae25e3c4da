"""Error bars that see measures of the whole film, from a bundle's files to the engine's result."""

import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.calibrate import degraded_errors
from monai_sr_bundle.calibrate.calibrate import calibrate
from monai_sr_bundle.calibrate.error_bar_training import relative_pinball
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.networks.film_error_scale import FilmErrorScale
from monai_sr_bundle.packing.release import release_error_bars
from monai_sr_bundle.uncertainty.calibration import read_calibration
from monai_sr_bundle.uncertainty.error_bars import error_scale, measure_whole_image, network_input, sees_spectrum

from tests.changed_bundles import copied, with_facts
from tests.networks.measured import trained_like
from tests.with_error_bars import calibration_of, chest, write_windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    parent = tmp_path_factory.mktemp("bundle")
    folder = copied(parent, "chest_xray_blind")
    torch.save(trained_like(FilmErrorScale(bands=12)).state_dict(), parent / "error_bars.pt")
    release_error_bars(str(folder), parent / "error_bars.pt")
    calibration_of(folder).write(folder / "calibration.json")
    return folder


@pytest.fixture(scope="module")
def film():
    """A chest with noise in its lower half alone: a region's own measures are others than those of the whole."""
    part = chest()[150:198, 100:156].copy()
    part[24:] += np.random.default_rng(0).normal(0, 0.02, part[24:].shape)
    return part.clip(0, 1).astype(np.float32)


def bars(image, folder, **options):
    return enhance(image, str(folder), scale=4, error_bars=True, **options).error_bars.half_width


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_region_has_the_error_bars_of_the_whole_because_the_whole_is_measured(folder, film, backend):
    if backend == "onnx":
        from monai_sr_bundle.packing.release import release

        release(str(folder))
    whole = bars(film, folder, backend=backend)
    for x0, y0, x1, y1 in ((10, 2, 46, 14), (0, 0, 9, 48), (55, 40, 56, 48)):
        part = bars(film, folder, backend=backend, roi=(x0, y0, x1, y1))
        np.testing.assert_allclose(part, whole[:, 4 * y0 : 4 * y1, 4 * x0 : 4 * x1], rtol=1e-4)
    alone = bars(film[2:40, 10:46], folder, backend=backend)  # away from its edges only the measures differ
    assert np.abs(alone[0, 48:96, 48:96] / whole[0, 56:104, 88:136] - 1).max() > 1e-3


def test_each_scale_is_calibrated_on_random_losses_and_used_for_its_own_results(folder, film, tmp_path):
    data = write_windows(tmp_path, "site", {"val": 52}, size=144)
    counts = []
    calibration = calibrate(str(folder), data, progress=lambda *done: counts.append(done), limit=51)
    assert (calibration.operator, calibration.images, calibration.patients) == ("random_degradation", 51, 51)
    assert counts[-1] == (3 * 3 * 51, 3 * 3 * 51)  # scales, losses, films
    assert [entry.scale for entry in calibration.entries] == [2, 3, 4]
    assert all(0.9 < entry.coverage < 0.95 for entry in calibration.entries)
    assert len({entry.factor for entry in calibration.entries}) > 1
    calibration.write(tmp_path / "site.json")
    for entry in calibration.entries:
        result = enhance(film, str(folder), scale=entry.scale, calibration=tmp_path / "site.json")
        shipped = enhance(film, str(folder), scale=entry.scale, error_bars=True)
        ratio = result.error_bars.half_width / shipped.error_bars.half_width
        np.testing.assert_allclose(ratio, entry.factor / 2.0, rtol=1e-5)  # 2: made up for the bundle
    assert read_calibration(tmp_path / "site.json", open_bundle(folder)) == calibration


def test_a_film_too_small_to_be_measured_is_not_calibrated_on(folder, tmp_path):
    data = write_windows(tmp_path, "site", {"val": 52}, size=120)
    with pytest.raises(InputError, match=r"000.png: 120 x 120 pixels, expected at least 128 .* at scale 4"):
        calibrate(str(folder), data, limit=51)


def test_a_film_too_small_to_be_measured_has_no_error_bars(folder):
    small = chest()[:20, :40].astype(np.float32)
    with pytest.raises(InputError, match="no error bars: those of .* need an image of at least 32 x 32 pixels"):
        bars(small, folder)


def test_a_network_of_unknown_reach_is_refused(tmp_path):
    folder = with_facts(copied(tmp_path, "chest_xray_blind"), error_bars_halo=None)
    with pytest.raises(BundleError, match="error_bars_halo is None, expected the receptive radius of the network"):
        open_bundle(folder)


def test_bands_that_are_not_measured_are_refused(tmp_path):
    folder = copied(tmp_path, "chest_xray_blind")
    definition = open_bundle(folder).facts["error_bars_def"]
    with_facts(folder, error_bars_def=definition | {"bands": 8})
    with pytest.raises(BundleError, match="error_bars_def has 8 bands, expected 12, which are measured, or 0"):
        sees_spectrum(open_bundle(folder))


def test_tiles_change_no_error_bar(folder):
    film = chest()[:300, :300].astype(np.float32)
    bundle = open_bundle(folder)
    backend = open_backend(bundle, "torch")
    high_res = np.kron(film, np.ones((4, 4), np.float32))
    whole = error_scale(high_res, film, bundle, backend)
    backend.free_bytes = lambda: 0  # the smallest tiles
    np.testing.assert_array_equal(error_scale(high_res, film, bundle, backend), whole)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_scale_has_its_file_and_both_backends_agree(folder, film, scale):
    bundle = open_bundle(folder, scale)
    assert bundle.has_file("error_bars.pt")
    assert bundle.has_file(f"error_bars_x{scale}.onnx")
    high_res = np.kron(film, np.ones((scale, scale), np.float32))
    backend = open_backend(bundle, "torch")
    cells = network_input(high_res, film, scale, measure_whole_image(film, bundle))
    network = FilmErrorScale(scale=scale, bands=12).eval()
    network.load_state_dict(torch.load(bundle.weights("error_bars.pt")[0], weights_only=True))
    with torch.inference_mode():
        expected = network(torch.from_numpy(cells)[None])[0, 0].numpy()
    np.testing.assert_allclose(error_scale(high_res, film, bundle, backend), expected, rtol=1e-5)


def test_films_are_drawn_with_errors_at_every_scale(folder, tmp_path, monkeypatch):
    data = write_windows(tmp_path, "own", {"train": 3}, size=192, noise=5.0)
    with_facts(folder, error_bars_films=[["own", 1, 1.0]])
    monkeypatch.setattr(degraded_errors, "BATCH", 2)
    batches = iter(degraded_errors.DegradedErrors(open_bundle(folder), data))
    scales = set()
    for _ in range(40):
        (cells, scale), errors = next(batches)
        assert cells.shape[:2] == (2, scale**2 + 14)
        assert errors.shape == (2, 1, scale * cells.shape[2], scale * cells.shape[3])
        assert 0 < errors.mean() < 0.2
        scales.add(scale)
    assert scales == {2, 3, 4}


def test_the_relative_loss_has_the_same_quantile_and_forgets_the_size_of_errors():
    errors = torch.from_numpy(np.random.default_rng(0).exponential(size=4001))
    guesses = torch.linspace(0.5, 5, 901, dtype=torch.float64)
    loss = relative_pinball(10**6)
    best = guesses[int(torch.stack([loss(errors, guess) for guess in guesses]).argmin())]
    assert best == pytest.approx(np.quantile(errors, 0.9), abs=0.02)
    assert loss(errors, guesses[0]) == pytest.approx(float(loss(10 * errors, 10 * guesses[0])), rel=1e-3)
