"""Reports of the artifacts that a network has removed: where, how many, and a sentence for the reader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_sr_bundle.inferers.data_consistency import NOTICED


@dataclass(frozen=True)
class ArtifactReport:
    """The artifacts (letters, lines) that a network has removed from an image, on the pixels of the input.

    Attributes:
        artifact_mask: ``[slices, rows, columns]`` bool, True where an artifact was removed.
        agreement_mask: bool of the same shape, True where the result agrees with the input: neither at an artifact, nor
            around it.
        count: number of connected areas of `artifact_mask`, in all slices together; 0 only if the result agrees with
            the input everywhere.
        share: share of the pixels that were removed.
    """

    artifact_mask: np.ndarray
    agreement_mask: np.ndarray
    count: int
    share: float

    @classmethod
    def from_probability(cls, probability: np.ndarray, input_weight: np.ndarray) -> ArtifactReport:
        """Make the report from the artifact probability and the weight of the input in data consistency.

        Args:
            probability, input_weight: ``[slices, rows, columns]``, 0 to 1.
        """
        # Every pixel that is not wholly followed counts, not only the certain ones: nothing goes without a word.
        artifact_mask, agreement_mask = probability > NOTICED, input_weight == 1
        # In a region beside an artifact, that is the edge from which the artifact can be seen.
        areas = [mask if mask.any() else ~agrees for mask, agrees in zip(artifact_mask, agreement_mask, strict=True)]
        return cls(artifact_mask, agreement_mask, sum(count_areas(area) for area in areas), float(np.mean(areas)))

    @property
    def agreement_share(self) -> float:
        """Share of the pixels for which agreement with the input is stated."""
        return float(self.agreement_mask.mean())

    @property
    def sentence(self) -> str:
        """A sentence for the reader of the result; empty where nothing was removed."""
        if not self.count:
            return ""
        marks = (
            "1 burned-in mark (a letter or a line) was"
            if self.count == 1
            else (f"{self.count} burned-in marks (letters or lines) were")
        )
        return (
            f"{marks} detected and removed ({percent(self.share)} of the image). It may have been anatomy or a device: "
            f"look at the original there. Agreement with the input is stated for {percent(self.agreement_share)} of "
            "its pixels."
        )


def percent(share: float) -> str:
    """Return a share from 0 to 1 in words; what is nearly nothing or everything is not called so."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if 0.999 < share < 1 else f"{100 * share:.3g} %"


def count_areas(mask: np.ndarray) -> int:
    """Return the number of areas of ``[rows, columns]`` bool whose pixels touch, also at corners."""
    edges = np.pad(mask.astype(bool), ((0, 0), (1, 1)))
    # Runs of pixels within a row, from a start to before an end, counted through all rows.
    changes, width = np.flatnonzero(edges[:, 1:] != edges[:, :-1]), mask.shape[1] + 1
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
