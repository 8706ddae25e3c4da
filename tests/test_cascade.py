"""A bundle that enlarges by two others in turn."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.backend import choose_draw, enlarge, open_backend
from monai_sr_bundle.benchmark.measure import measure, multiply_adds
from monai_sr_bundle.benchmark.protocol import Protocol, Row
from monai_sr_bundle.bundles import find_bundle, open_bundle
from monai_sr_bundle.engine import image_from_array
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.export.release import release
from monai_sr_bundle.inferers.process import Process
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.phantom import draw_phantom
from monai_sr_bundle.training.run import train
from tests.changed_bundles import copied, damaged, with_facts
from tests.drawn_data import write_radiographs
from tests.networks.measured import trained_like

NAME = "chest_ct_sr3_x8"
FIRST = {"channels": [8, 8], "blocks": 1, "residual_std": 0.1}
SECOND = {"channels": [8, 8], "blocks": 1, "residual_std": 0.05}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Folder of the shipped bundle with tiny parts."""
    place = tmp_path_factory.mktemp("cascade")
    folder = copied(place, NAME)
    for name, scale, options in (("first", 4, FIRST), ("second", 2, SECOND)):
        part = folder / "variants" / name
        target = open_bundle(part).facts["network_def"]["_target_"]
        with_facts(part, network_def={"_target_": target, "scale": "@scale", **options})
        torch.manual_seed(scale)
        network = trained_like(SR3(scale, **options))
        network.unet.tail.weight.data.mul_(0.1)
        network.process.copy_(torch.from_numpy(Process.of(open_bundle(part).diffusion).fingerprint()))
        torch.save(network.state_dict(), place / f"{name}.pt")
        release(str(part), place / f"{name}.pt")
    return folder


@pytest.fixture(scope="module")
def cascade(bundle):
    return str(bundle / "variants" / "cascade")


@pytest.fixture(scope="module")
def slices():
    """Two slices of 14x15 pixels, HU."""
    chest = 1400 * draw_phantom(32) - 1000
    return np.stack([chest[4:18, 3:18], chest[8:22, 3:18]]).astype(np.int16)


def drawn(hu, bundle, **options):
    return enhance(image_from_array(hu, (1.6, 0.8), "CT"), bundle, backend="torch", **options)


@pytest.fixture
def changed(bundle, tmp_path):
    """Another copy of the cascade, to be changed."""
    shutil.copytree(bundle, tmp_path / NAME)
    return tmp_path / NAME / "variants" / "cascade"


def test_the_shipped_cascade_is_two_networks_from_64_to_512():
    shipped = find_bundle(f"{NAME}:cascade")
    assert [part.name for part in shipped.parts] == [f"{NAME}:first", f"{NAME}:second"]
    assert [part.scale for part in shipped.parts] == [4, 2]
    assert shipped.scale == 8
    assert shipped.parameters == sum(part.parameters for part in shipped.parts)
    assert shipped.memory_per_pixel >= max(part.memory_per_pixel for part in shipped.parts)
    assert find_bundle(NAME).parts == (find_bundle(NAME),)


def test_the_second_enlarges_what_the_first_has_drawn(bundle, cascade, slices):
    result = drawn(slices[0], cascade, seed=5, steps=4)
    assert result.image.pixels.shape == (1, 112, 120)
    assert result.image.grid.spacing_xyz[:2] == pytest.approx((0.1, 0.2))
    assert result.provenance.scale_zyx == (1, 8, 8)
    assert result.provenance.bundle == f"{NAME}:cascade"
    parts = [open_bundle(bundle / "variants" / name) for name in ("first", "second")]
    lines = "".join(f"{part.metadata['weights_sha256']['model.pt']}  {part.folder.name}\n" for part in parts)
    assert result.provenance.weights_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    # The low resolution of the result is still that of the input, within what noise of untrained networks adds.
    low = result.image.pixels[0].reshape(14, 8, 15, 8).mean((1, 3))
    assert np.corrcoef(low.ravel(), slices[0].ravel())[0, 1] > 0.9


def test_a_region_gives_the_pixels_of_the_whole_and_a_tile_changes_none(cascade, slices):
    whole = drawn(slices, cascade, steps=2, sampler="ddpm", seed=3).image.pixels
    region = drawn(slices, cascade, steps=2, sampler="ddpm", seed=3, roi=(2, 3, 9, 11)).image.pixels
    tiled = drawn(slices, cascade, steps=2, sampler="ddpm", seed=3, tile=6).image.pixels
    # To the last bits of float32, which may round another way.
    assert np.abs(region.astype(int) - whole[:, 24:88, 16:72]).max() <= 1
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    assert whole[0].std() > 1


def test_a_mean_is_over_draws_of_the_whole_cascade(cascade, slices):
    bundle = find_bundle(cascade)
    backend = open_backend(bundle, "torch", "cpu")
    low = ((slices[0] + 1000) / 1400).astype(np.float32)
    draw = choose_draw(bundle, 7, None, 2, 3)
    mean, _ = enlarge(low, bundle, backend, draw=draw)
    each = [enlarge(low, bundle, backend, draw=replace(draw, samples=1, first=number))[0] for number in range(3)]
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_it_is_the_second_of_the_first_and_each_has_a_noise_of_its_own(bundle, cascade, slices):
    low = ((slices[0] + 1000) / 1400).astype(np.float32)
    whole = find_bundle(cascade)
    draw = choose_draw(whole, 7, None, 2, 1)
    first, second = (open_bundle(bundle / "variants" / name) for name in ("first", "second"))

    def by_hand(part):
        made, _ = enlarge(low, first, open_backend(first, "torch", "cpu"), draw=draw)
        return enlarge(made, second, open_backend(second, "torch", "cpu"), draw=replace(draw, part=part))[0]

    found, _ = enlarge(low, whole, open_backend(whole, "torch", "cpu"), draw=draw)
    np.testing.assert_array_equal(found, by_hand(1))
    assert np.abs(found - by_hand(0)).max() > 0.01


def test_progress_runs_to_one_by_the_work_that_is_done(cascade, slices):
    seen = []
    drawn(slices[0], cascade, steps=2, samples=2, progress=seen.append)
    assert seen[-1] == pytest.approx(1.0)
    # Two draws of two steps in each part: the second has 16 times the pixels of the first.
    first, second = (part.parameters * pixels for part, pixels in zip(find_bundle(cascade).parts, (1, 16), strict=True))
    share = first / (first + second)
    once = [share / 2, share, (1 + share) / 2, 1.0]
    np.testing.assert_allclose(seen, [done / 2 for done in once] + [0.5 + done / 2 for done in once])


def test_it_joins_a_comparison_with_the_work_of_both(bundle, cascade, tmp_path):
    data = write_radiographs(tmp_path, size=128, counts=(("test", 2),))
    row = Row(cascade, "Cascade", steps=2)
    protocol = Protocol(
        name="drawn", title="Drawn chests", about="", modality="CXR", sets=("drawn",), operator="bicubic_antialias_x8",
        window=(0, 255), levels=255, rows=(Row("bicubic", "Bicubic"), row),
    )  # fmt: skip
    result = measure(protocol, data).results[1]
    assert len(result.figures["psnr"]) == 2
    assert np.isfinite(result.figures["psnr"]).all()
    first, second = (open_bundle(bundle / "variants" / name) for name in ("first", "second"))
    assert result.multiply_adds == multiply_adds(first, "16x16", row) + multiply_adds(second, "64x64", row)


def test_its_process_cannot_be_shown(cascade, tmp_path):
    data = write_radiographs(tmp_path, size=128, counts=(("test", 1),))
    row = Row(cascade, "Cascade")
    protocol = Protocol(
        name="drawn", title="Drawn chests", about="", modality="CXR", sets=("drawn",), operator="bicubic_antialias_x8",
        window=(0, 255), levels=255, rows=(row,), reference=row.key, processes=(row.key,),
    )  # fmt: skip
    with pytest.raises(BundleError, match="is a cascade without a network of its own. Name .*:first and .*:second"):
        measure(protocol, data)


def test_its_parts_are_trained_and_exported_not_itself(cascade, tmp_path, capsys):
    with pytest.raises(BundleError, match="is a cascade"):
        train(cascade, tmp_path, out=tmp_path / "out", minutes=1)
    assert not (tmp_path / "out").exists()
    assert main(["export", cascade]) == 4
    assert "is a cascade without a network of its own" in capsys.readouterr().err


def test_the_draw_of_a_cascade_is_checked_as_that_of_one_network(cascade, slices):
    with pytest.raises(InputError, match="--steps 3: the 1000 steps"):
        drawn(slices[0], cascade, steps=3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": 4}, "scale is 4, but the parts of its cascade enlarge by 8 together"),
        ({"cascade": ["first", "cascade"]}, "is itself a cascade. Name what that one names"),
        ({"cascade": ["first", "third"]}, "third is not a bundle"),
        ({"cascade": "first"}, "has cascade first, expected a list of names of variants, in a variant"),
        ({"cascade": 2}, "has cascade 2, expected a list"),
        ({"cascade": ["first", "../second"]}, "expected a list of names"),
        ({"generative": False}, "generative is False, but True in .*:first; expected the same"),
        ({"window": [-900, 300]}, r"window is \[-900, 300\], but \[-1000, 400\] in .*:first; expected the same"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changed, slices, change, told):
    with_facts(changed, **change)
    with pytest.raises(BundleError, match=told):
        drawn(slices[0], str(changed), steps=2)


def test_a_bundle_itself_is_no_cascade(changed):
    with_facts(changed.parents[1], cascade=["first", "second"])
    with pytest.raises(BundleError, match="in a variant"):
        open_bundle(changed.parents[1])


def test_what_has_no_file_for_a_backend_is_told_another(cascade, slices):
    with pytest.raises(
        BundleError, match=r"^bundle .*:first: its metadata.json lists no encoder.onnx. Use another --backend.$"
    ):
        enhance(image_from_array(slices, (1.0, 1.0), "CT"), cascade, backend="onnx")


def test_damaged_weights_of_a_part_are_not_loaded(changed, slices):
    damaged(changed.parent / "second", "model.pt")
    with pytest.raises(BundleError, match=":second: model.pt has SHA-256"):
        drawn(slices[0], str(changed), steps=2)
