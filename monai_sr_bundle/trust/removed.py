"""Where a network has removed what was put on an image: on a report's picture, and in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_sr_bundle.inferers.consistency import CERTAIN, count_areas


@dataclass(frozen=True)
class Removed:
    """What was removed, on the pixels of the input.

    Attributes:
        where: ``[slices, rows, columns]`` bool.
        followed: of the same shape, where the result keeps to the input; not at what was removed, nor around it.
        places: connected areas of `where`, of all slices together.
    """

    where: np.ndarray
    followed: np.ndarray
    places: int

    @classmethod
    def of(cls, probable: np.ndarray, followed: np.ndarray) -> Removed:
        """What `backends.backend.enlarge` has found in the slices of an image.

        Args:
            probable, followed: ``[slices, rows, columns]``, from 0 to 1.
        """
        where = probable >= CERTAIN
        return cls(where, followed == 1, sum(count_areas(one) for one in where))

    @property
    def share(self) -> float:
        """Of the pixels, what was removed."""
        return float(self.where.mean())

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
