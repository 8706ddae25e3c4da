"""Results of a protocol of real conditions: PSNR of every method on every film, and what it gains over bicubic.

A cell is one set of films with one loss of resolution, reduced by one factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from monai_sr_bundle.benchmark.film_protocol import FilmProtocol, FilmSet
from monai_sr_bundle.benchmark.training_curve import TrainingTime
from monai_sr_bundle.metrics.mean import Mean

WORSE = 0.05
"""Loss against bicubic in dB beyond which an image counts as made worse."""
RELATIVE = ("noise", "edge_width", "flicker")
"""Figures of unmodified images that are compared with bicubic's."""
GREATEST = ("near_padding",)
"""Figures of unmodified images of which the greatest counts, and not the mean."""


@dataclass(frozen=True)
class Film:
    """One film that was measured.

    Attributes:
        set: label of its set.
        name: name of its file.
        patient: name of the patient.
    """

    set: str
    name: str
    patient: str


@dataclass(frozen=True)
class MethodFacts:
    """Number of parameters of a row's method and how long it was trained; None if that is not recorded."""

    parameters: int = 0
    training: TrainingTime | None = None


@dataclass(frozen=True)
class PairGain:
    """The image, in a condition, on which a method is furthest below bicubic or least above it.

    Attributes:
        gain: PSNR over bicubic in dB.
        set, loss: labels of the set and the loss.
        image: name of the image.
    """

    gain: float
    set: str
    loss: str
    image: str


@dataclass(frozen=True)
class Cell:
    """A method in one cell.

    Attributes:
        set, loss: labels of the set and the loss.
        psnr: PSNR in dB, its interval over patients.
        gain: PSNR over bicubic in dB, its interval over patients.
        worse: share of the images that are more than `WORSE` below bicubic.
        lowest: the image with the least gain.
        coverage: share of the pixels inside their error bars, its interval over patients; None without error bars.
        structure_coverage: the same at small structures of the result; None where it was not measured.
        tenths_coverage: the same in the tenths of each image's pixels with the narrowest error bars to the widest,
            mean over the images; empty where it was not measured.
        relative_width: mean half-width of the error bars, relative to the one half-width for all pixels of an image
            that as many of its errors are within, mean over the images; None where it was not measured.
    """

    set: str
    loss: str
    psnr: Mean
    gain: Mean
    worse: float
    lowest: PairGain
    coverage: Mean | None = None
    structure_coverage: Mean | None = None
    tenths_coverage: tuple[float, ...] = ()
    relative_width: float | None = None


@dataclass(frozen=True)
class Summary:
    """A method over all cells of one factor.

    Attributes:
        mean: mean over the cells of their gain in dB.
        least: the cell with the least mean gain.
        pairs: number of pairs of an image and a loss.
        worse: share of them that are more than `WORSE` below bicubic.
        lowest: the pair with the least gain.
        interpolated: share of the pairs that are outside the limits of the method and were interpolated.
        unmodified_interpolated: share of the images that would be if they were enlarged as they are.
    """

    mean: float
    least: Cell
    pairs: int
    worse: float
    lowest: PairGain
    interpolated: float
    unmodified_interpolated: float


@dataclass(frozen=True)
class UnmodifiedCell:
    """A method on the unmodified images of one set.

    Attributes:
        set: label of the set.
        images: number of its images.
        figures: mean of each of `unmodified_measurement.FIGURES` over the images that have it, the greatest of
            `GREATEST`; None where no image has it.
        ratios: mean ratio to bicubic's of `RELATIVE`; None where no image has it; empty for bicubic itself.
    """

    set: str
    images: int
    figures: dict[str, float | None]
    ratios: dict[str, float | None]


@dataclass
class FilmComparison:
    """All results of one protocol of real conditions.

    Attributes:
        protocol: the protocol.
        films: the films of all sets, set after set.
        psnr: PSNR in dB, ``[films, scales, losses, rows]``; NaN where a method does not enlarge by the factor.
        coverage: share of the pixels inside their error bars, shaped as `psnr`; NaN where a method has none.
        interpolated: 1 where the input was outside the limits of the method, and what was measured is bicubic
            interpolation, as the user gets it; else 0, or NaN as `psnr`.
        unmodified_interpolated: the same of each image as it is, ``[films, rows]``.
        methods: facts of each row.
        error_bar_parts: figures of `trust_figures.measure_parts`, ``[12, ...]``.
        manifest_sha256: SHA-256 of the manifest of each folder.
        versions: package versions by name.
        minutes: duration of the comparison.
        unmodified_films: the images that were enlarged as they are, set after set.
        unmodified: their figures by name, each ``[images, scales, rows]``; NaN where an image has none.
    """

    protocol: FilmProtocol
    films: list[Film]
    psnr: np.ndarray
    coverage: np.ndarray
    interpolated: np.ndarray
    unmodified_interpolated: np.ndarray
    methods: list[MethodFacts]
    manifest_sha256: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    minutes: float = 0.0
    unmodified_films: list[Film] = field(default_factory=list)
    unmodified: dict[str, np.ndarray] = field(default_factory=dict)
    error_bar_parts: np.ndarray | None = None

    def films_of(self, film_set: FilmSet) -> list[int]:
        """Return the positions of the films of a set."""
        return [index for index, film in enumerate(self.films) if film.set == film_set.label]

    def enlarges_by(self, row: int, scale: int) -> bool:
        """Return whether the method of a row was measured at a factor."""
        return bool(np.isfinite(self.psnr[:, self.protocol.scales.index(scale), :, row]).any())

    def gains(self) -> np.ndarray:
        """Return PSNR over bicubic in dB, shaped as `psnr`."""
        reference = self.protocol.reference_index
        return np.asarray(self.psnr - self.psnr[..., reference : reference + 1])

    def cells(self, row: int, scale: int) -> Iterator[Cell]:
        """Yield the cells of a method at a factor that it enlarges by, set after set."""
        scale_index, gains = self.protocol.scales.index(scale), self.gains()
        for film_set in self.protocol.sets:
            indices = self.films_of(film_set)
            patients = [self.films[index].patient for index in indices]
            for loss_index, loss in enumerate(self.protocol.losses):
                psnr, gain, coverage = (
                    values[indices, scale_index, loss_index, row] for values in (self.psnr, gains, self.coverage)
                )
                at_structures, tenths, relative_width = None, (), None
                if self.error_bar_parts is not None:
                    part_figures = self.error_bar_parts[:, indices, scale_index, loss_index, row]
                    measured = np.isfinite(part_figures[0])  # an image may have no structure
                    if measured.any():
                        chosen = [patient for patient, has_some in zip(patients, measured, strict=True) if has_some]
                        at_structures = Mean.of(part_figures[0, measured].tolist(), chosen)
                        *tenths, relative_width = np.nanmean(part_figures[1:], axis=1).tolist()
                lowest = int(np.argmin(gain))
                yield Cell(
                    film_set.label,
                    loss.label,
                    Mean.of(psnr.tolist(), patients),
                    Mean.of(gain.tolist(), patients),
                    float((gain < -WORSE).mean()),
                    PairGain(float(gain[lowest]), film_set.label, loss.label, self.films[indices[lowest]].name),
                    Mean.of(coverage.tolist(), patients) if np.isfinite(coverage).any() else None,
                    at_structures,
                    tuple(tenths),
                    relative_width,
                )

    def summary(self, row: int, scale: int) -> Summary:
        """Return a method's figures over all cells of a factor that it enlarges by."""
        cells = list(self.cells(row, scale))
        scale_index = self.protocol.scales.index(scale)
        gains = self.gains()[:, scale_index, :, row]
        return Summary(
            mean=float(np.mean([cell.gain.mean for cell in cells])),
            least=min(cells, key=lambda cell: cell.gain.mean),
            pairs=gains.size,
            worse=float((gains < -WORSE).mean()),
            lowest=min((cell.lowest for cell in cells), key=lambda lowest: lowest.gain),
            interpolated=float(self.interpolated[:, scale_index, :, row].mean()),
            unmodified_interpolated=float(self.unmodified_interpolated[:, row].mean()),
        )

    def unmodified_cells(self, row: int, scale: int) -> Iterator[UnmodifiedCell]:
        """Yield the figures of a method on unmodified images at a factor, set after set, if there are any."""
        scale_index, reference = self.protocol.scales.index(scale), self.protocol.reference_index
        for film_set in self.protocol.unmodified_sets:
            images = [index for index, film in enumerate(self.unmodified_films) if film.set == film_set.label]
            values = {name: figures[images, scale_index, row] for name, figures in self.unmodified.items()}
            if not any(np.isfinite(figures).any() for figures in values.values()):
                continue
            ratios = {}
            for name in RELATIVE if row != reference else ():
                bicubic = self.unmodified[name][images, scale_index, reference]
                ratios[name] = _summarise(values[name][bicubic > 0] / bicubic[bicubic > 0])
            yield UnmodifiedCell(
                film_set.label,
                len(images),
                {name: _summarise(figures, greatest=name in GREATEST) for name, figures in values.items()},
                ratios,
            )


def _summarise(values: np.ndarray, *, greatest: bool = False) -> float | None:
    measured = values[np.isfinite(values)]
    if not len(measured):
        return None
    return float(measured.max() if greatest else measured.mean())
