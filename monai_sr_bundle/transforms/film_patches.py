"""Batches of training pairs from films at several resolutions, degraded at random."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.images.picture import read_picture
from monai_sr_bundle.transforms.pairs import evenly_spread
from monai_sr_bundle.transforms.random_degradation import RandomDegradation, film_noise_textures
from monai_sr_bundle.transforms.random_patches import PatchSource, RandomPatches


def read_films(
    dataset_dir: Path, set_name: str, split: str, *, reduce: int = 1, files: str = "*", limit: int | None = None
) -> dict[str, np.ndarray]:
    """Read the radiographs of a set as 8-bit arrays, by the names of their files.

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
        InputError: `read_manifest` or `read_picture` refuses a file.
    """
    records = read_manifest(dataset_dir, kind="cxr", split=split, sets=[set_name])
    records = [record for record in records if fnmatch(record.file.name, files)]
    if limit is not None:
        records = evenly_spread(records, limit)
    return {record.file.stem: reduce_film(read_picture(record.file).pixels[0], reduce) for record in records}


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
        scales, scale_shares, patch_size, batch_size, seed: see `RandomPatches`.
        limit: read only this many films of each source (for a trial).
        ideal, single: shares of the losses of resolution; see `RandomDegradation`.

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
        scales: Sequence[int] = (2, 3, 4),
        scale_shares: Sequence[float] = (0.25, 0.15, 0.6),
        patch_size: int = 40,
        batch_size: int = 8,
        limit: int | None = None,
        seed: int | None = None,
        ideal: float = 0.3,
        single: float = 0.35,
    ) -> None:
        film_sources = [PatchSource(*source) for source in sources]
        films = [
            list(
                read_films(
                    Path(dataset_dir), source.set, "train", reduce=source.reduce, files=source.files, limit=limit
                ).values()
            )
            for source in film_sources
        ]
        # At their own resolution only: a reduction has averaged the noise away.
        unreduced = [of_source for of_source, source in zip(films, film_sources, strict=True) if source.reduce == 1]
        noisy = unreduced[0][::2] if unreduced else []
        textures = film_noise_textures(film / 255.0 for film in noisy if min(film.shape) >= 128)
        super().__init__(
            films,
            film_sources,
            RandomDegradation(ideal=ideal, single=single, noise_textures=textures if len(textures) else None),
            scales=scales,
            scale_shares=scale_shares,
            patch_size=patch_size,
            batch_size=batch_size,
            seed=seed,
        )

    def draw_image(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Draw a whole film and a scale, and degrade the film.

        Returns:
            The scale; low resolution ``[1, rows, columns]`` and the film ``[scale * rows, scale * columns]``, float32.
        """
        scale = int(self.R.choice(self.scales, p=self.scale_shares))
        films = self.images[self.R.choice(len(self.images), p=self.shares)]
        film = films[self.R.randint(len(films))]
        high_res = film[tuple(slice(side - side % scale) for side in film.shape)] / np.float32(255)
        if self.R.random_sample() < 0.5:
            high_res = high_res[:, ::-1]
        return scale, self.degrade(high_res, scale)[None], high_res

    def make_pair(self, image: np.ndarray, rows: slice, columns: slice, scale: int) -> tuple[np.ndarray, np.ndarray]:
        high_res = image[rows, columns] / np.float32(255)
        return self.degrade(high_res, scale)[None], high_res[None]


class FilmPairs(Dataset):
    """Films to choose weights by: the middle of each, degraded at random but every time in the same way.

    Args:
        dataset_dir: folder of folders with manifests.
        sources: name of each set, and the whole factor that its films are reduced by.
        scale: high-resolution pixels per low-resolution pixel.
        size: largest side of the high-resolution image.
        limit: read only this many films of each source.
        seed: seed of the degradation. Default 0.

    Items:
        `image` ``[1, rows, columns]`` and `label` ``[1, scale * rows, scale * columns]`` in [0, 1], and `name`.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sources: Sequence[tuple[str, int]],
        scale: int = 4,
        size: int = 384,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        degrade = RandomDegradation()
        degrade.set_random_state(seed)
        self.pairs: list[dict[str, Any]] = []
        for set_name, reduce in sources:
            films = read_films(Path(dataset_dir), set_name, "val", reduce=reduce, limit=limit)
            for name, film in films.items():
                sides = [min(size, side) // scale * scale for side in film.shape]
                row, column = ((side - part) // 2 for side, part in zip(film.shape, sides, strict=True))
                high_res = film[row : row + sides[0], column : column + sides[1]] / np.float32(255)
                low_res = degrade(high_res, scale)
                self.pairs.append(
                    {"image": torch.from_numpy(low_res)[None], "label": torch.from_numpy(high_res)[None], "name": name}
                )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.pairs[index]
