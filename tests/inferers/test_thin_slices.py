"""Thin slices: the mean over both directions of planes, and the thick slices are their means."""

import numpy as np
import pytest

from monai_sr_bundle.inferers import thin_slices as through_plane
from monai_sr_bundle.inferers.thin_slices import consistent_slices, enlarge_slices, residual_of_means, strips


def noise(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def sloping(window):
    """A network that sees one pixel far along both axes of a plane, and tells rows from columns."""
    middle = np.pad(window[0, 0], 1, mode="edge")
    mixed = middle[1:-1, 1:-1] + 2 * middle[:-2, 1:-1] + 5 * middle[1:-1, :-2]
    return np.repeat(mixed, 4, axis=0)[None, None].astype(np.float32)


def enlarged(volume, region=None, **changes):
    region = region or (0, volume.shape[1], 0, volume.shape[2])
    options = {"scale": 4, "halo": 1, "tile": 64, "region": region, **changes}
    return enlarge_slices(volume, changes.pop("predict", sloping), **options)[0]


def test_the_result_is_the_mean_of_the_coronal_and_the_sagittal_planes():
    volume = noise(5, 9, 11)
    coronal = np.stack([sloping(volume[None, None, :, row])[0, 0] for row in range(9)], axis=1)
    sagittal = np.stack([sloping(volume[None, None, :, :, column])[0, 0] for column in range(11)], axis=2)
    thin = enlarged(volume)
    assert thin.shape == (20, 9, 11)
    np.testing.assert_allclose(thin, (coronal + sagittal) / 2, rtol=1e-6)
    assert np.abs(coronal - sagittal).max() > 0.1


def test_planes_are_turned_into_units_of_the_window_one_by_one():
    volume = np.rint(1000 * noise(4, 8, 8)).astype(np.int16)
    thin = enlarged(volume, to_unit=lambda plane: plane.astype(np.float32) / 1000)
    np.testing.assert_array_equal(thin, enlarged(volume.astype(np.float32) / 1000))


def test_strips_cover_a_region_and_their_thin_slices_keep_to_the_memory(monkeypatch):
    monkeypatch.setattr(through_plane, "STRIP_BYTES", 4 * 4 * 10 * 512 * 100)
    regions = list(strips((5, 305, 0, 512), slices=10, scale=4))
    assert regions == [(5, 105, 0, 512), (105, 205, 0, 512), (205, 305, 0, 512)]


def test_a_strip_has_some_rows_however_many_slices_there_are():
    assert [stop - start for start, stop, *_ in strips((0, 128, 0, 512), slices=100_000, scale=4)] == [64, 64]


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_the_means_of_consistent_slices_are_the_thick_ones_and_the_change_is_the_least(scale):
    thick, guess = noise(6, 7, 8), noise(6 * scale, 7, 8)
    thin = consistent_slices(guess.copy(), thick)
    np.testing.assert_allclose(thin.reshape(6, scale, 7, 8).mean(axis=1), thick, rtol=0, atol=1e-6)
    # The least change: the same for all slices of a group, so that nothing of it lies in the null space.
    change = (thin - guess).reshape(6, scale, 7, 8)
    np.testing.assert_allclose(change, np.broadcast_to(change[:, :1], change.shape), rtol=0, atol=1e-6)


def test_consistent_slices_keep_to_the_limits_of_the_storage():
    thick = np.full((1, 1, 1), 0.9, dtype=np.float32)
    guess = np.array([0.2, 0.6, 0.9, 1.0], dtype=np.float32).reshape(4, 1, 1)
    thin = consistent_slices(guess, thick, (0.0, 1.0))
    assert thin.max() <= 1.0
    # What is clipped goes to the others: one projection alone would leave 0.86 here.
    np.testing.assert_allclose(thin.mean(), 0.9, atol=1e-6)
    np.testing.assert_allclose(thin.ravel(), [0.6, 1.0, 1.0, 1.0], atol=1e-6)


def test_the_residual_is_what_the_means_lack():
    thin = np.array([1.0, 3.0, 10.0, 20.0], dtype=np.float32).reshape(4, 1, 1)
    thick = np.array([5.0, 15.0], dtype=np.float32).reshape(2, 1, 1)
    assert residual_of_means(thin, thick).ravel().tolist() == [3.0, 0.0]
