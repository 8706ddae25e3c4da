import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms import native_patches
from monai_sr_bundle.transforms.native_patches import FilmPairs, FilmPatches, middle_part, read_films
from PIL import Image

from tests.drawn_data import write_radiographs

SOURCES = (("drawn", 1, 0.7), ("drawn", 2, 0.3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_radiographs(tmp_path_factory.mktemp("films"), size=192)


def by_name(films):
    return {file.stem: film for file, film in films.items()}


def patches(data, **options):
    return FilmPatches(data, sources=SOURCES, patch_size=16, batch_size=3, seed=0, **options)


def test_films_are_read_as_stored_and_reduced_to_whole_grey_levels(data):
    films = by_name(read_films(data, "drawn", "val", reduce=2))
    assert set(films) == {"val0", "val1"}
    stored = by_name(read_films(data, "drawn", "val"))["val0"]
    expected = Degradation("bicubic_antialias", 2)(stored / 255)
    np.testing.assert_array_equal(films["val0"], np.rint(255 * expected))


def test_films_of_one_name_in_several_folders_are_all_read(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    manifest, new_files = tmp_path / "data" / "drawn" / "manifest.csv", {}
    for row in csv.DictReader(manifest.read_text().splitlines()):
        new_files[row["file"]] = new = f"{Path(row['file']).parent}/{Path(row['file']).stem}/frontal.png"
        for root in (tmp_path / "data", tmp_path / "data" / "drawn"):
            if (root / row["file"]).is_file():
                (root / new).parent.mkdir(parents=True)
                (root / row["file"]).rename(root / new)
    text = manifest.read_text()
    for old, new in new_files.items():
        text = text.replace(old, new)
    manifest.write_text(text)
    assert len(read_films(tmp_path / "data", "drawn", "train")) == len(read_films(data, "drawn", "train")) > 1


def test_films_of_more_than_8_bits_are_refused(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    (file, *_) = read_films(tmp_path / "data", "drawn", "train")
    Image.fromarray(np.full((192, 192), 3000, np.uint16)).save(file)
    with pytest.raises(InputError, match=f"{file.name}: has 16 bits, and training takes 8"):
        read_films(tmp_path / "data", "drawn", "train")


def test_a_limit_takes_films_from_all_over_the_split(data):
    assert set(by_name(read_films(data, "drawn", "train", limit=2))) == {"train0", "train2"}


def test_every_batch_has_pairs_of_one_scale_and_all_scales_come(data):
    batches = iter(patches(data))
    scales = set()
    for _ in range(20):
        low_res, high_res = next(batches).values()
        scale = high_res.shape[-1] // 16
        scales.add(scale)
        assert low_res.shape == (3, 1, 16, 16)
        assert high_res.shape == (3, 1, 16 * scale, 16 * scale)
        assert low_res.dtype == high_res.dtype == torch.float32
    assert scales == {2, 3, 4}


def test_both_images_of_a_pair_show_the_same_place(data):
    dataset = patches(data, scales=(4,), scale_shares=(1.0,))
    dataset.degrade.ideal = 1.0
    batches = iter(dataset)
    for _ in range(5):
        low_res, high_res = next(batches).values()
        expected = torch.nn.functional.avg_pool2d(high_res, 4)
        # A kernel wider than the pixel and what lies around the patch: close, not equal.
        assert (low_res - expected).abs().mean() < 0.25 * (expected - expected.mean()).abs().mean() + 1 / 255


def test_the_same_seed_gives_the_same_batches(data):
    first, second = (next(iter(patches(data))) for _ in range(2))
    torch.testing.assert_close(first["image"], second["image"])


TWO_PROCESSES = """
import sys
from itertools import islice
from torch.utils.data import DataLoader
from monai_sr_bundle.transforms.native_patches import FilmPatches
films = FilmPatches(sys.argv[1], sources=[("drawn", 1, 1.0)], patch_size=16, batch_size=3, seed=0)
first, second = islice(DataLoader(films, batch_size=None, num_workers=2), 2)  # one of each process
print(first["image"].equal(second["image"]))
"""


def test_several_processes_draw_patches_of_their_own(data):
    # In a process of its own: a loader's processes leave a signal handler behind, which later tests would meet.
    ended = subprocess.run([sys.executable, "-c", TWO_PROCESSES, data], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_noise_is_taken_from_all_unreduced_films_of_the_first_set(data, tmp_path):
    folder, rng = shutil.copytree(data, tmp_path / "noisy"), np.random.default_rng(0)
    for path in folder.rglob("train*.png"):
        film = np.asarray(Image.open(path)) + 3 * rng.standard_normal((192, 192))
        Image.fromarray(np.rint(film.clip(0, 255)).astype(np.uint8)).save(path)
    first, second, reduced = ("drawn", 1, 0.4, "train0*"), ("drawn", 1, 0.4, "train2*"), ("drawn", 2, 0.2)
    for sources, count in (((first,), 1), ((first, second, reduced), 2)):
        dataset = FilmPatches(folder, sources=sources, patch_size=16, batch_size=3, seed=0)
        assert len(dataset.degrade.noise_textures) == count


def test_the_middle_of_a_film_is_degraded_the_same_way_every_time(data, monkeypatch):
    monkeypatch.setattr(native_patches, "PAIR_SIDE", 128)
    first, second = (FilmPairs(data, sources=[("drawn", 1)]) for _ in range(2))
    assert [pair["name"] for pair in first] == ["val0", "val1"]
    for pair, same in zip(first, second, strict=True):
        torch.testing.assert_close(pair["image"], same["image"], rtol=0, atol=0)
    stored = by_name(read_films(data, "drawn", "val"))["val0"][32:160, 32:160] / np.float32(255)
    np.testing.assert_array_equal(first[0]["label"][0], stored)
    assert first[0]["image"].shape == (1, 32, 32)


def test_the_middle_part_divides_by_the_scale():
    assert middle_part((192, 150), 384, 4) == (slice(0, 192), slice(1, 149))
    assert middle_part((768, 385), 384, 5) == (slice(194, 574), slice(2, 382))


def test_films_smaller_than_a_patch_are_refused(data):
    with pytest.raises(InputError, match=r"drawn/\* reduced by 2: none of 3 images has 128 pixels"):
        FilmPatches(data, sources=SOURCES, patch_size=32)
