"""The result of an enlargement: the image, its provenance, measurements and warnings, and its files."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.engine.comparison import interpolate_source, reduce_result
from monai_sr_bundle.images import files, unit
from monai_sr_bundle.images.file_state import require_unchanged
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import InputComparison, slices_touch
from monai_sr_bundle.images.picture import JPEG_QUALITY, SUFFIXES
from monai_sr_bundle.images.provenance import Provenance
from monai_sr_bundle.images.unit import Padding, largest_around
from monai_sr_bundle.inferers.data_consistency import ArtifactReport, DataConsistency
from monai_sr_bundle.report.build import (
    Consistency,
    build_report,
    describe_error_bars,
    describe_findings,
    measure_consistency,
)
from monai_sr_bundle.report.error_pictures import ErrorBarPictures, draw_error_bars, draw_removed_outlines, draw_slice
from monai_sr_bundle.report.grain import Grain, describe_more_grain, measure_grain
from monai_sr_bundle.report.preview import draw_preview, name_interpolation, slice_values, value_unit, viewing_steps
from monai_sr_bundle.uncertainty.error_bars import TOLERATED, ErrorBars

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """An enlarged image, and everything that is known of it.

    Attributes:
        image: the enlarged image, in the storage of the input, on the finer grid.
        source: the part of the input that it was made from, on its own grid.
        original: the whole input.
        bundle: the bundle that made it.
        region: rows and columns of the original.
        slices: first slice of the original, and the one after the last.
        provenance: how it was made.
        warnings: one sentence each; what the reader of the result must know.
        seconds: time spent in the network.
        error_bars: error bars; None where they were not requested.
        before_consistency: root mean square and largest absolute distance to the input, in modality values, of what the
            network made, reduced again, before data consistency; None without it. Of the pixels that are followed.
        removed: removed artifacts, of a bundle that removes artifacts; None of any other.
        padding: padding of the source; None where there is none.
        input_comparison: sharpness, noise and contrast of the input, and the limits or ranges of the training inputs;
            empty where the bundle does not state them.
        site_calibration: whether the error bars are those of a calibration that the site has made. Default False.
        forced: options of `monai-sr enhance` by which the bundle was made to take the image. Default: none.
    """

    image: Image = field(repr=False)
    source: Image = field(repr=False)
    original: Image = field(repr=False)
    bundle: Bundle = field(repr=False)
    region: Region
    slices: tuple[int, int]
    provenance: Provenance
    warnings: tuple[str, ...]
    seconds: float
    error_bars: ErrorBars | None = None
    before_consistency: tuple[float, float] | None = None
    removed: ArtifactReport | None = None
    padding: Padding | None = None
    input_comparison: Mapping[str, InputComparison] = field(default_factory=dict)
    site_calibration: bool = False
    forced: tuple[str, ...] = ()

    # Files

    def save(self, out: Path | str, *, overwrite: bool = False) -> Path:
        """Write the enlarged image as the same kind of file or folder as its source, completely or not at all.

        Args:
            out: file or folder to write.
            overwrite: replace an older result. Default False.

        Raises:
            OutputError: `out` exists, has the suffix of another kind of file, or cannot be written.
            InputError: the image was made from an array.
        """
        # Only DICOM has room for what was measured of the result.
        provenance = self.described_provenance if self.original.format == "dicom" else self.provenance
        written = files.write(self.image, provenance, Path(out), overwrite=overwrite)
        for sentence in describe_loss(self.image, written):
            if sentence not in self.warnings:
                logger.warning("%s: %s", written.name, sentence)
        return written

    def preview(self, out: Path) -> Path:
        """Draw input, interpolation, result and their difference into one PNG.

        Raises:
            OutputError: the picture cannot be written.
        """
        middle = self.image.pixels.shape[0] // 2
        return draw_preview(
            self.source,
            self.image,
            self._interpolated(middle),
            self.provenance,
            slice_index=middle,
            window=self.display_window,
            out=out,
        )

    def report(
        self,
        *,
        output: Path | None = None,
        seconds: float | None = None,
        command: Sequence[str] = (),
        tolerance: float | None = None,
        maps: Sequence[Path] = (),
    ) -> dict[str, Any]:
        """Return everything about the run, as report.json holds it (see `report.build.build_report`).

        Args:
            output: file or folder that `save` wrote. Default: nothing was written.
            seconds: duration of the run. Default: the time in the network.
            command: the command line as a list of words. Default: one that does the same.
            tolerance: half-width of an error bar above which a pixel is marked. Default: a share of the window.
            maps: files that hold the error bars.

        Raises:
            InputError: an input or output file that can no longer be read, or an input that is no longer the file
                whose pixels were enlarged.
        """
        before = self.before_consistency
        contents = build_report(
            source=self.source,
            result=self.image,
            provenance=self.provenance,
            # What was unpacked of a zip is gone as soon as it is read.
            input_files=[self.original.path] if self.original.layout == "zip" else self.original.files,
            output=output,
            seconds=self.seconds if seconds is None else seconds,
            consistency=self.consistency,
            bicubic_consistency=self._interpolation_consistency(),
            # What the reader of the file found has a place of its own in the report.
            warnings=[sentence for sentence in self.warnings if sentence not in self.original.notes],
            command=command,
            forced=self.forced,
            network_consistency=Consistency(*before, self.unit) if before else None,
            error_bars=self.describe_error_bars(tolerance, maps),
            removed=self.removed,
            input_comparison=self.input_comparison,
            blind=self.bundle.family.is_blind,
            grain=self.grain,
        )
        require_unchanged(self.original.file_states)  # the hashes are those of the pixels
        return contents

    def describe_error_bars(self, tolerance: float | None = None, maps: Sequence[Path] = ()) -> dict[str, Any] | None:
        """Describe the error bars as in a report; None without. The arguments are those of `report`."""
        if self.error_bars is None:
            return None
        return describe_error_bars(self.error_bars, self.tolerance(tolerance), self.unit, self.window, maps)

    def error_bar_pictures(self, tolerance: float | None = None) -> ErrorBarPictures | None:
        """Draw the error bars of the middle slice; None without error bars."""
        if self.error_bars is None:
            return None
        middle = self.image.pixels.shape[0] // 2
        half_width = self._as_viewed(self.error_bars.half_width[middle])
        return draw_error_bars(self._draw_slice(middle), half_width, self.tolerance(tolerance))

    def removed_picture(self) -> bytes:
        """Draw the slice from which most was removed, as a PNG; nothing where nothing was removed."""
        if self.removed is None or not self.removed.count:
            return b""
        index = int(self.removed.artifact_mask.sum(axis=(1, 2)).argmax())
        return draw_removed_outlines(self._draw_slice(index), self._as_viewed(self.removed.artifact_mask[index]))

    def _draw_slice(self, index: int) -> np.ndarray:
        x, y, _ = self.image.grid.spacing_xyz if self.image.grid.in_millimetres else (1.0, 1.0, 1.0)
        values = self._as_viewed(slice_values(self.image, index))
        return draw_slice(values, (y, x), self.display_window, self.image.black_is_high)

    def _as_viewed(self, values: np.ndarray) -> np.ndarray:
        down, across = viewing_steps(self.image)
        return values[::down, ::across]

    # What is said of it

    @property
    def unit(self) -> str:
        """Unit of its values: "HU" or "grey levels"."""
        return value_unit(self.original)

    @cached_property
    def window(self) -> tuple[float, float]:
        """Values that were 0 and 1 inside the model."""
        return unit.value_window(self.original, self.bundle.modality, self.bundle.window)

    @cached_property
    def consistency(self) -> Consistency:
        """The distance of the reduced result from the input, over the pixels that can be compared."""
        family = self.bundle.family
        return measure_consistency(
            self.source,
            lambda index: reduce_result(family, lambda high_res: slice_values(self.image, high_res), index),
            self._comparable,
        )

    @cached_property
    def described_provenance(self) -> Provenance:
        """The provenance, with sentences on agreement with the input and on error bars, for files that hold them."""
        if math.isnan(self.consistency.rms):
            return self.provenance
        findings = describe_findings(
            self.consistency,
            self.provenance.operator,
            self.error_bars,
            shipped=not self.site_calibration,
            resembles_training=resembles_training(self.input_comparison),
            followed_share=self.removed.agreement_share if self.removed else 1.0,
            before_consistency=self.before_consistency,
        )
        return replace(self.provenance, findings=findings)

    @cached_property
    def grain(self) -> Grain | None:
        """The grain of the middle slice and of its interpolation; None where it cannot be measured."""
        middle = self.image.pixels.shape[0] // 2
        values, interpolated = slice_values(self.image, middle), self._interpolated(middle)
        return measure_grain(values, interpolated, self.bundle.scale_zyx[1:], hu=self.original.modality == "CT")

    @property
    def grain_warnings(self) -> tuple[str, ...]:
        """A sentence where the result of a CT is noisier than interpolation, which no user of a CT expects.

        Of a film, whose one slice may not fit into memory again, the report alone says so.
        """
        if self.bundle.modality != "CT" or self.provenance.generative:
            return ()
        return describe_more_grain(self.grain, name_interpolation(self.bundle.scale_zyx)[1])

    def tolerance(self, requested: float | None = None) -> float:
        """Return the half-width above which a pixel is marked: as requested, else a share of the window."""
        return TOLERATED * (self.window[1] - self.window[0]) if requested is None else requested

    @property
    def display_window(self) -> tuple[float, float]:
        """The values shown black and white: the DICOM file's own window for a radiograph, else that of the model."""
        dataset = self.original.header[0] if self.original.format == "dicom" and self.original.header else None
        if self.original.modality != "CT" and dataset is not None:
            centre, width = (_first_number(dataset, name) for name in ("WindowCenter", "WindowWidth"))
            if math.isfinite(centre) and 1 < width < math.inf:
                return centre - width / 2, centre + width / 2
        return self.window

    def _comparable(self, index: int) -> np.ndarray:
        """Return the pixels of a slice of the source that the result says something of when it is reduced again.

        Not what was removed, nor padding and the pixels beside it; nor the pixels at the cut, where a region was cut
        out of an image: they are reduced from what lies on both of its sides; nor slices that overlap or leave gaps,
        which are not the means of thin ones.
        """
        _, rows, columns = self.original.pixels.shape
        is_along_slices = self.bundle.scale_zyx[0] > 1
        reach = 0 if is_along_slices else DataConsistency(self.bundle.degradation).spread
        mask = np.zeros(self.source.pixels.shape[1:], dtype=bool)
        if is_along_slices and not slices_touch(self.original):
            return mask
        top, left = (reach * (start > 0) for start in (self.region.top, self.region.left))
        bottom, right = reach * (self.region.bottom < rows), reach * (self.region.right < columns)
        mask[top : max(top, self.region.rows - bottom), left : max(left, self.region.columns - right)] = True
        if self.removed is not None:
            mask &= self.removed.agreement_mask[index]
        if self.padding is not None:
            mask &= ~largest_around(self.padding[index], reach)
        return mask

    def _interpolated(self, index: int) -> np.ndarray:
        return interpolate_source(
            self.bundle.family,
            lambda low_res: slice_values(self.original, low_res),
            index,
            self.slices,
            self.region,
        )

    def _interpolation_consistency(self) -> Consistency:
        # Slice by slice: a second enlarged volume would double the memory.
        family = self.bundle.family
        return measure_consistency(
            self.source, lambda index: reduce_result(family, self._interpolated, index), self._comparable
        )


def describe_loss(image: Image, out: Path) -> tuple[str, ...]:
    """Return a sentence where an image that was no JPEG is written as one; the reader of a JPEG says it itself."""
    if image.format == "jpeg" or SUFFIXES.get(out.suffix.lower()) != "jpeg":
        return ()
    return (f"Saved as JPEG at quality {JPEG_QUALITY}, which changes pixels; a name ending in .png keeps every one.",)


def _first_number(dataset: Mapping[str, Any], keyword: str) -> float:
    """Return the first number of an attribute; not a number where it has none."""
    values = np.atleast_1d(dataset.get(keyword, ()))
    return float(values[0]) if values.size and values.dtype == np.float64 else math.nan


def resembles_training(comparison: Mapping[str, InputComparison]) -> bool | None:
    """Return whether an input is like the training inputs; None if that is unknown.

    It is unknown for a bundle that states no ranges, and where nothing could be measured.
    """
    if any(measure.side for measure in comparison.values()):
        return False
    return True if comparison and all(measure.value is not None for measure in comparison.values()) else None
