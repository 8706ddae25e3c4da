"""Batches of training pairs from images as they are, degraded at random: films at several resolutions, CT slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data.dataset import Dataset
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.images.picture import read_picture
from monai_sr_bundle.images.unit import AIR, find_padding
from monai_sr_bundle.inferers.tiling import neighbours
from monai_sr_bundle.transforms.pairs import limit_values, volume_name
from monai_sr_bundle.transforms.patches import PatchSource, RandomPatches
from monai_sr_bundle.transforms.random_degradation import (
    RandomDegradation,
    RandomScanDegradation,
    blur_matrix,
    film_noise_textures,
)


def read_films(
    dataset_dir: Path, set_name: str, split: str, *, reduce: int = 1, files: str = "*", limit: int | None = None
) -> dict[Path, np.ndarray]:
    """Read the radiographs of a set as 8-bit arrays, by their files.

    Args:
        dataset_dir: folder of folders with manifests.
        set_name: the folder.
        split: "train", "val" or "test" of the manifest.
        reduce: whole factor to reduce them by, antialiased bicubic.
        files: pattern of the file names. Default: all.
        limit: read this many, evenly spread over the split; all of them if None.

    Returns:
        Arrays ``[rows, columns]`` of uint8, in the order of the manifest.

    Raises:
        InputError: `read_manifest` or `read_picture` refuses a file, or it has more than 8 bits.
    """
    records = read_manifest(dataset_dir, kind="cxr", split=split, sets=[set_name])
    records = limit_values([record for record in records if fnmatch(record.file.name, files)], limit)
    return {record.file: reduce_film(_read_8_bits(record.file), reduce) for record in records}


def _read_8_bits(file: Path) -> np.ndarray:
    pixels = read_picture(file).pixels[0]
    if pixels.dtype != np.uint8:
        raise InputError(f"{file.name}: has 16 bits, and training takes 8. Prepare the data with `monai-sr prepare`.")
    return pixels


def reduce_film(film: np.ndarray, factor: int) -> np.ndarray:
    """Return an 8-bit film reduced by a whole factor, cropped to a multiple of it first."""
    if factor == 1:
        return film.astype(np.uint8)
    rows, columns = (size - size % factor for size in film.shape)
    reduced = Degradation("bicubic_antialias", factor)(film[:rows, :columns] / 255.0)
    return np.asarray(np.rint(reduced * 255), dtype=np.uint8)


class FilmPatches(RandomPatches):
    """Endless batches of random patches of films, all of one batch at one scale.

    Args:
        dataset_dir: folder of folders with manifests.
        sources: films and how often they are drawn; see `PatchSource`.
        limit: read only this many films of each source (for a trial).
        loss_shares: shares of the losses of resolution; see `RandomDegradation`.
        patches: `patch_size`, `scales`, `scale_shares`, `batch_size` and `seed` of `RandomPatches`.

    Yields:
        See `RandomPatches`; one slice, intensities in [0, 1].

    Raises:
        InputError: no film of a source is large enough for a patch.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sources: Sequence[tuple[str, int, float] | tuple[str, int, float, str]],
        limit: int | None = None,
        loss_shares: Mapping[str, float] | None = None,
        **patches: Any,
    ) -> None:
        film_sources = [PatchSource(*source) for source in sources]
        root = Path(dataset_dir)
        films = [
            [*read_films(root, each.set, "train", reduce=each.reduce, files=each.files, limit=limit).values()]
            for each in film_sources
        ]
        # At their own resolution only: a reduction has averaged the noise away.
        first = film_sources[0].set
        noisy = [of_set[::2] for of_set, each in zip(films, film_sources, strict=True) if each[:2] == (first, 1)]
        textures = film_noise_textures(film / 255.0 for film in chain(*noisy) if min(film.shape) >= 128)
        degrade = RandomDegradation(**loss_shares or {}, noise_textures=textures if len(textures) else None)
        super().__init__(films, film_sources, degrade, **patches)

    def make_pair(self, image: np.ndarray, rows: slice, columns: slice, scale: int) -> tuple[np.ndarray, np.ndarray]:
        high_res = image[rows, columns] / np.float32(255)
        return self.degrade(high_res, scale)[None], high_res[None]


PAIR_SCALE, PAIR_SIDE = 4, 384
"""Factor of the pairs that weights are chosen by, and the largest side of their high-resolution images."""


def middle_part(shape: Sequence[int], largest: int, multiple: int = 1) -> tuple[slice, slice]:
    """Return the rows and columns in the middle of an image, at most `largest` and a multiple of a number."""
    sides = [min(largest, side) // multiple * multiple for side in shape]
    first = [(side - part) // 2 for side, part in zip(shape, sides, strict=True)]
    rows, columns = (slice(start, start + part) for start, part in zip(first, sides, strict=True))
    return rows, columns


class FilmPairs(Dataset):
    """Films to choose weights by: the middle of each, degraded at random but every time in the same way.

    Args:
        dataset_dir: folder of folders with manifests.
        sources: name of each set, and the whole factor that its films are reduced by.
        limit: read only this many films of each source.

    Items:
        `image` ``[1, rows, columns]`` and `label` ``[1, 4 * rows, 4 * columns]`` in [0, 1], and `name`.
    """

    def __init__(
        self, dataset_dir: str | Path, *, sources: Sequence[tuple[str, int]], limit: int | None = None
    ) -> None:
        degrade = RandomDegradation()
        degrade.set_random_state(0)
        pairs: list[dict[str, Any]] = []
        for set_name, reduce in sources:
            films = read_films(Path(dataset_dir), set_name, "val", reduce=reduce, limit=limit)
            for file, film in films.items():
                high_res = film[middle_part(film.shape, PAIR_SIDE, PAIR_SCALE)] / np.float32(255)
                low_res = degrade(high_res, PAIR_SCALE)
                pair = {"image": torch.from_numpy(low_res)[None], "label": torch.from_numpy(high_res)[None]}
                pairs.append({**pair, "name": file.stem})
        super().__init__(pairs)


SOFTENED, SOFTENING = 0.4, (0.4, 0.8)
"""Share of the patches with noise that are softened, and standard deviations in low-resolution pixels of the Gaussians.

A softened target is as smooth as a slice is at its own pixel size. A reduced slice is full of vessels of a pixel; a
network that has seen no other takes noise of a slice as it is stored for vessels, and draws them.
"""


class Scan(NamedTuple):
    """A CT volume, or a single slice.

    Attributes:
        hu: ``[slices, rows, columns]`` int16 in HU, air in place of padding.
        padding: booleans of the same shape, true where there was padding.
    """

    hu: np.ndarray
    padding: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows and columns."""
        return self.hu.shape


def read_scans(
    dataset_dir: Path, set_name: str, split: str, *, reduce: int = 1, limit: int | None = None
) -> dict[Path, Scan]:
    """Read the CT of a set, by its files.

    Args:
        dataset_dir: folder of folders with manifests.
        set_name: the folder.
        split: "train", "val" or "test" of the manifest.
        reduce: whole factor to reduce rows and columns by, antialiased bicubic.
        limit: read this many files, evenly spread over the split; all of them if None.

    Returns:
        Scans in the order of the manifest.

    Raises:
        InputError: `read_manifest` or `read_nifti` refuses a file.
    """
    records = read_manifest(dataset_dir, kind="ct", split=split, sets=[set_name])
    files = [record.file for record in records if record.file.is_file()]  # DICOM series are samples for reading
    return {file: read_scan(file, reduce) for file in limit_values(files, limit)}


@lru_cache(maxsize=1)  # the slices of one volume follow each other
def read_scan(file: Path, reduce: int) -> Scan:
    """Read a NIfTI, with air in place of padding, and reduce its rows and columns; see `read_scans`."""
    image = read_nifti(file)
    hu = np.rint(image.pixels * np.float32(image.slope) + np.float32(image.intercept)).astype(np.int16)
    padding = find_padding(hu)
    hu[padding] = AIR
    if reduce == 1:
        return Scan(hu, padding)
    rows, columns = (side - side % reduce for side in hu.shape[1:])
    operator = Degradation("bicubic_antialias", reduce)
    reduced = np.stack([np.rint(operator.reduce(one[:rows, :columns])).astype(np.int16) for one in hu])
    blocks = padding[:, :rows, :columns].reshape(-1, rows // reduce, reduce, columns // reduce, reduce)
    return Scan(reduced, blocks.all(axis=(2, 4)))


ALL = slice(None)


def degrade_slices(
    scan: Scan,
    indices: Sequence[int],
    degrade: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: slice = ALL,
    columns: slice = ALL,
) -> np.ndarray:
    """Degrade a slice with its neighbours.

    Args:
        scan: the volume.
        indices: the slices, from `neighbours`. One that is its own neighbour has the same noise there, as in an image
            to enlarge.
        degrade: degrades ``[slices, rows, columns]`` in HU; also gets where there is padding.
        rows, columns: part of the slices. Default: all.

    Returns:
        ``[slices, rows / scale, columns / scale]`` in HU.
    """
    distinct = sorted(set(indices))
    low_res = degrade(scan.hu[distinct, rows, columns].astype(np.float32), scan.padding[distinct, rows, columns])
    return low_res[[distinct.index(each) for each in indices]]


class ScanPatches(RandomPatches):
    """Endless batches of random patches of CT slices with their neighbours, all of one batch at one scale.

    The files of a source are drawn equally often, however many slices they have.

    Args:
        dataset_dir: folder of folders with manifests.
        sources: scans and how often they are drawn; see `PatchSource`.
        window: HU that become 0 and 1; values beyond are kept.
        slices: slices of the input, odd; the target is the middle one. Default 3.
        limit: read only this many files of each source (for a trial).
        patches: `patch_size`, `scales`, `scale_shares`, `batch_size` and `seed` of `RandomPatches`.

    Yields:
        See `RandomPatches`.

    Raises:
        InputError: no scan of a source is large enough for a patch.
    """

    turn = True  # rows of a NIfTI may run either way

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sources: Sequence[tuple[str, int, float]],
        window: Sequence[float],
        slices: int = 3,
        limit: int | None = None,
        **patches: Any,
    ) -> None:
        self.window, self.slices = window, slices
        scan_sources = [PatchSource(*source) for source in sources]
        scans = [
            list(read_scans(Path(dataset_dir), source.set, "train", reduce=source.reduce, limit=limit).values())
            for source in scan_sources
        ]
        super().__init__(scans, scan_sources, RandomScanDegradation(), **patches)

    def make_pair(self, image: Scan, rows: slice, columns: slice, scale: int) -> tuple[np.ndarray, np.ndarray]:
        index = int(self.R.randint(len(image.hu)))
        indices = neighbours(index, len(image.hu), self.slices)
        degradation, rng = self.degrade.draw(scale), self.degrade.generator()
        part = Scan(image.hu[:, rows, columns], image.padding[:, rows, columns])
        if degradation.noise and self.R.random_sample() < SOFTENED:
            part = soften(part, indices, scale * self.R.uniform(*SOFTENING))
        low_res = degrade_slices(part, indices, lambda hu, padding: degradation(hu, rng, padding))
        if self.R.random_sample() < 0.5:
            low_res = low_res[::-1]  # a volume may be stored from either end
        return to_unit(low_res, self.window), to_unit(part.hu[[index]], self.window)


class ScanPairs(Dataset):
    """CT slices to choose weights by: the middle of each, degraded at random but every time in the same way.

    Args:
        dataset_dir: folder of folders with manifests.
        sources: name of each set, and the whole factor that its slices are reduced by.
        window, slices: see `ScanPatches`.
        limit: take only this many slices of each source, evenly spread.

    Items:
        `image` ``[slices, rows, columns]`` and `label` ``[1, 4 * rows, 4 * columns]``, 0 and 1 at the ends of the
        window, and `name`.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sources: Sequence[tuple[str, int]],
        window: Sequence[float],
        slices: int = 3,
        limit: int | None = None,
    ) -> None:
        degrade = RandomScanDegradation()
        degrade.set_random_state(0)
        pairs: list[dict[str, Any]] = []
        for set_name, reduce in sources:
            scans = read_scans(Path(dataset_dir), set_name, "val", reduce=reduce)
            all_slices = [(file, index) for file, scan in scans.items() for index in range(len(scan.hu))]
            for file, index in limit_values(all_slices, limit):
                scan = scans[file]
                part = middle_part(scan.shape[1:], PAIR_SIDE, PAIR_SCALE)
                indices = neighbours(index, len(scan.hu), slices)
                low_res = degrade_slices(scan, indices, lambda hu, padding: degrade(hu, PAIR_SCALE, padding), *part)
                pair = {"image": low_res, "label": scan.hu[[index], *part]}
                in_units = {key: torch.from_numpy(to_unit(hu, window)) for key, hu in pair.items()}
                pairs.append({**in_units, "name": f"{volume_name(file)}_{index:03d}"})
        super().__init__(pairs)


def soften(scan: Scan, indices: Sequence[int], deviation: float) -> Scan:
    """Return the scan with some of its slices smoothed by a Gaussian.

    Args:
        scan: the volume.
        indices: the slices; the others are left as they are.
        deviation: standard deviation in pixels.
    """
    hu = scan.hu.astype(np.float32)
    down, across = (blur_matrix(round(deviation, 1), side) for side in hu.shape[1:])
    for index in set(indices):
        hu[index] = down @ hu[index] @ across.T
    return scan._replace(hu=hu)


def to_unit(hu: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """Return HU as float32, 0 and 1 at the ends of a window."""
    low, high = window
    return np.asarray((hu - np.float32(low)) / np.float32(high - low), dtype=np.float32)
