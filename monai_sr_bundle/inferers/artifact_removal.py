"""Where a network has removed what was put on an image, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_sr_bundle.inferers.data_consistency import NOTICED


@dataclass(frozen=True)
class Removed:
    """What a network has removed of what was put on an image, on the pixels of the input.

    Attributes:
        where: ``[slices, rows, columns]`` bool.
        followed: of the same shape, where the result keeps to the input; not at what was removed, nor around it.
        places: connected areas of `where`, of all slices together; 0 only if the input is followed everywhere.
        share: of the pixels, what was removed.
    """

    where: np.ndarray
    followed: np.ndarray
    places: int
    share: float

    @classmethod
    def of(cls, probable: np.ndarray, followed: np.ndarray) -> Removed:
        """What `backends.backend.enlarge` has found in the slices of an image.

        Args:
            probable, followed: ``[slices, rows, columns]``, from 0 to 1.
        """
        # All that is not wholly followed, not only what is certain: nothing goes without a word.
        where, wholly = probable > NOTICED, followed == 1
        # Of a region beside a mark, the edge that the mark can be seen from.
        told = [one if one.any() else ~kept for one, kept in zip(where, wholly, strict=True)]
        return cls(where, wholly, sum(count_areas(one) for one in told), float(np.mean(told)))

    @property
    def followed_share(self) -> float:
        """Of the pixels, those that a certificate of consistency holds for."""
        return float(self.followed.mean())

    @property
    def sentence(self) -> str:
        """For the reader of the result; empty where nothing was removed."""
        if not self.places:
            return ""
        count = f"{self.places} place{'s' * (self.places != 1)}"
        return (
            f"Something that seems to be put on the image, as a letter or a line, was removed in {count} "
            f"({percent(self.share)} of the image). It may have been anatomy or a device: look at the original there. "
            f"Agreement with the input is stated for {percent(self.followed_share)} of its pixels."
        )


def percent(share: float) -> str:
    """A share from 0 to 1 in words; neither nothing nor everything is said of what is only nearly so."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if 0.999 < share < 1 else f"{100 * share:.3g} %"


def count_areas(where: np.ndarray) -> int:
    """Areas of ``[rows, columns]`` bool whose pixels touch, also at corners."""
    edges = np.pad(where.astype(bool), ((0, 0), (1, 1)))
    # Runs of pixels within a row, from a start to before an end, counted through all rows.
    changes, width = np.flatnonzero(edges[:, 1:] != edges[:, :-1]), where.shape[1] + 1
    starts, ends = changes[::2], changes[1::2]
    # The runs of the next row that touch a run follow one another.
    first = np.searchsorted(ends, starts + width)
    touching = np.searchsorted(starts, ends + width, side="right") - first
    runs = np.arange(len(starts))
    upper = np.repeat(runs, touching)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(touching) + touching, touching)
    # Each run belongs to one with a smaller number, or to itself: then it stands for an area.
    area = runs.copy()
    while len(upper):
        np.minimum.at(area, np.maximum(upper, lower), np.minimum(upper, lower))
        while not np.array_equal(area, area[area]):
            area = area[area]
        upper, lower = area[upper], area[lower]
        apart = upper != lower
        upper, lower = upper[apart], lower[apart]
    return int((area == runs).sum())
