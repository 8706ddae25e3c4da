"""Losses of a site's patients for a calibration, as sums: no image is in them, and sites can add them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.uncertainty.calibration import CalibrationEntry
from monai_sr_bundle.uncertainty.conformal import FACTORS, bound_of_loss, controlling_factor

LEAST_PATIENTS = 20
LEAST_IMAGES = 50
"""Fewer leave the factor to chance: with 50 patients, the corrected loss is still 0.02 above the measured one."""
LEAST_CT_SLICES, LEAST_CT_PATIENTS = 15, 5
"""Least numbers for CT, whose patients are few: below `LEAST_PATIENTS` the factor is not corrected for their number,
and the calibration states how much less is guaranteed on average over further patients."""

_STEP = 2.0**-40


def rounded(value: np.ndarray) -> np.ndarray:
    """Return numbers as multiples of 2^-40, so that sums of thousands are exact in any order."""
    return np.asarray(np.rint(np.asarray(value, dtype=np.float64) / _STEP) * _STEP)


@dataclass(frozen=True)
class LossCurve:
    """The losses of patients with one set of sampler settings, at one scale and one strength.

    Attributes:
        sampling, scale, strength: see `CalibrationEntry`.
        images, patients, cases: numbers of them; an image is several cases where it is degraded several times.
        loss_sum: ``[len(FACTORS)]``, sum over the patients of their share of pixels outside, for every factor.
        scale_sum: sum over the cases of their mean error scale, in units of the window.
    """

    sampling: Sampling | None
    scale: int | None
    strength: float | None
    images: int
    patients: int
    cases: int
    loss_sum: np.ndarray
    scale_sum: float

    def coverage(self, factor: float) -> float:
        """Return the share of the pixels inside their error bars at one of `FACTORS`, mean over the patients."""
        return float(1 - self.loss_sum[np.abs(FACTORS - factor).argmin()] / self.patients)

    def entry(self, alpha: float) -> CalibrationEntry:
        """Return the calibration of these patients by conformal risk control.

        Raises:
            ValueError: see `controlling_factor`.
        """
        is_corrected = self.patients >= LEAST_PATIENTS
        factor = controlling_factor(self.loss_sum, self.patients, alpha, corrected=is_corrected)
        return CalibrationEntry(
            self.sampling,
            factor,
            coverage=self.coverage(factor),
            half_width=factor * self.scale_sum / self.cases,
            scale=self.scale,
            strength=self.strength,
            guaranteed=None if is_corrected else 1 - bound_of_loss(alpha, self.patients),
        )


def require_enough(images: int, patients: int, modality: str, source: str, advice: str) -> None:
    """Refuse images or patients that are too few for error bars that hold.

    Args:
        images, patients: numbers of them; of CT, slices.
        modality: "CXR" or "CT", which has fewer patients.
        source, advice: folder of the images and a sentence on what to do, for the message.

    Raises:
        InputError: fewer than 50 images or 20 patients, of CT 15 slices or 5 patients.
    """
    is_ct = modality == "CT"
    least_images = LEAST_CT_SLICES if is_ct else LEAST_IMAGES
    least_patients = LEAST_CT_PATIENTS if is_ct else LEAST_PATIENTS
    if images < least_images or patients < least_patients:
        raise InputError(
            f"{source} has {images} images of {patients} patients ({modality}), expected at least "
            f"{least_images} of {least_patients} patients for error bars that hold. {advice}"
        )


def add_curves(curves: Sequence[LossCurve]) -> LossCurve:
    """Return the curve of the patients of several sites together, who have none in common."""
    first = curves[0]
    return LossCurve(
        first.sampling,
        first.scale,
        first.strength,
        images=sum(each.images for each in curves),
        patients=sum(each.patients for each in curves),
        cases=sum(each.cases for each in curves),
        loss_sum=np.sum([each.loss_sum for each in curves], axis=0),
        scale_sum=sum(each.scale_sum for each in curves),
    )
