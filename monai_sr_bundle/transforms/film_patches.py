"""Batches of training pairs from films at several resolutions, degraded at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms.transform import Randomizable
from torch.utils.data import Dataset, IterableDataset

from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.picture import read_picture
from monai_sr_bundle.transforms.pairs import evenly_spread
from monai_sr_bundle.transforms.random_degradation import RandomDegradation, film_noise_textures

MARGIN = 12
"""Low-resolution pixels around a patch that are degraded with it, so that no kernel sees the edge of the patch."""


class FilmSource(NamedTuple):
    """Films of one set and resolution, and how often they are drawn.

    Attributes:
        set: name of the folder of the data.
        reduce: whole factor that the stored films are reduced by, antialiased bicubic.
        share: weight of this source among all; a patch is of it with its part of their sum.
    """

    set: str
    reduce: int
    share: float


def read_films(
    dataset_dir: Path, set_name: str, split: str, *, reduce: int = 1, limit: int | None = None
) -> dict[str, np.ndarray]:
    """Read the radiographs of a set as 8-bit arrays, by the names of their files.

    Args:
        dataset_dir: folder of folders with manifests.
        set_name: the folder.
        split: "train", "val" or "test" of the manifest.
        reduce: whole factor to reduce them by, antialiased bicubic.
        limit: read this many, evenly spread over the split; all of them if None.

    Returns:
        Arrays ``[rows, columns]`` of uint8, in the order of the manifest.

    Raises:
        InputError: `read_manifest` or `read_picture` refuses a file.
    """
    records = read_manifest(dataset_dir, kind="cxr", split=split, sets=[set_name])
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


class FilmPatches(IterableDataset, Randomizable):
    """Endless batches of random patches, all of one batch at one scale.

    Args:
        dataset_dir: folder of folders with manifests.
        sources: films and how often they are drawn; see `FilmSource`.
        scales: factors, and `scale_shares` how often each is drawn.
        patch_size: side of the low-resolution patch.
        batch_size: patches.
        limit: read only this many films of each source (for a trial).
        seed: seed of the patches and their degradation. Default: a random one.

    Yields:
        `image`, ``[B, 1, patch_size, patch_size]``, and `label`, ``[B, 1, scale * patch_size, ...]``, in [0, 1].

    Raises:
        InputError: no film of a source is large enough for a patch.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        sources: Sequence[tuple[str, int, float]],
        scales: Sequence[int] = (2, 3, 4),
        scale_shares: Sequence[float] = (0.25, 0.15, 0.6),
        patch_size: int = 40,
        batch_size: int = 8,
        limit: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.scales, self.scale_shares = tuple(scales), tuple(scale_shares)
        self.patch_size, self.batch_size = patch_size, batch_size
        film_sources = [FilmSource(*source) for source in sources]
        total = sum(source.share for source in film_sources)
        self.shares = [source.share / total for source in film_sources]
        smallest = max(self.scales) * patch_size
        self.films: list[list[np.ndarray]] = []
        for source in film_sources:
            films = read_films(Path(dataset_dir), source.set, "train", reduce=source.reduce, limit=limit).values()
            large = [film for film in films if min(film.shape) >= smallest]
            if not large:
                raise InputError(
                    f"{source.set} reduced by {source.reduce}: none of {len(films)} films has {smallest} pixels along "
                    "both axes. Lower patch_size, or leave this source out."
                )
            self.films.append(large)
        # At their own resolution only: a reduction has averaged the noise away.
        unreduced = [films for films, source in zip(self.films, film_sources, strict=True) if source.reduce == 1]
        textures = film_noise_textures(film / 255.0 for film in unreduced[0][::2] if min(film.shape) >= 128)
        self.degrade = RandomDegradation(noise_textures=textures if len(textures) else None)
        self.set_random_state(seed)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> FilmPatches:
        super().set_random_state(seed, state)
        self.degrade.set_random_state(state=self.R)  # one generator, which a checkpoint can keep
        return self

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            scale = int(self.R.choice(self.scales, p=self.scale_shares))
            pairs = [self._draw_pair(scale) for _ in range(self.batch_size)]
            low_res, high_res = (np.stack(images)[:, None] for images in zip(*pairs, strict=True))
            yield {"image": torch.from_numpy(low_res), "label": torch.from_numpy(high_res)}

    def _draw_pair(self, scale: int) -> tuple[np.ndarray, np.ndarray]:
        films = self.films[self.R.choice(len(self.films), p=self.shares)]
        film = films[self.R.randint(len(films))]
        corner = [int(self.R.randint(size // scale - self.patch_size + 1)) for size in film.shape]
        # A margin of any size, so that the 8x8 blocks of JPEG lie anywhere in the patch.
        first = [max(0, start - int(self.R.randint(MARGIN - 7, MARGIN + 1))) for start in corner]
        last = [
            min(size // scale, start + self.patch_size + MARGIN) for start, size in zip(corner, film.shape, strict=True)
        ]
        region = film[scale * first[0] : scale * last[0], scale * first[1] : scale * last[1]] / np.float32(255)
        low_res = self.degrade(region, scale)
        row, column = corner[0] - first[0], corner[1] - first[1]
        low_res = low_res[row : row + self.patch_size, column : column + self.patch_size]
        size = scale * self.patch_size
        high_res = region[scale * row : scale * row + size, scale * column : scale * column + size]
        if self.R.random_sample() < 0.5:
            low_res, high_res = low_res[:, ::-1], high_res[:, ::-1]
        return low_res.copy(), high_res.copy()


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
