"""Checks of an image before it is enlarged: against what is expected of its kind, and against the training inputs.

Signs that an image is not what the models expect are one sentence each, which the user is told; they are read from the
file's own header and from the pixels. What cannot be enlarged at all, such as a screenshot in colour, is refused by the
readers, and a volume whose slices cannot be made thinner by `check_slices`.

A network enlarges any image, but its figures and error bars hold for images like its training inputs: by sharpness,
noise and contrast, never by millimetres. Outside the limits that a bundle states, an image is interpolated. A bundle
without limits states a range, beyond which the user is warned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.image import AIR_HU, Image
from monai_sr_bundle.images.provenance import describes_result

SMALLEST_PIXEL_MM, LARGEST_EXTENT_MM = 0.02, 1500.0
"""Finer pixels than any detector or scanner has, even enlarged four times; a wider image than any of a chest."""
DIGITIZED_FILM = "DF"
"""Conversion Type (0008,0064) of a film that was scanned."""
LATERAL_VIEWS = ("LL", "RL", "LLAT", "RLAT", "LAT", "LATERAL")
"""View Position (0018,5101) of lateral films; the last four are not DICOM's own, but common."""
LATERAL_CODES = {"399067008", "399173006", "399198007", "R-102CD", "R-10236", "R-10232"}
"""Codes of a lateral, left lateral and right lateral View (0054,0220): of SNOMED CT (CID 4010), and those before it."""
FRONTAL_FILM = np.array([[-3, 0, 0, -3], [-1, 0, 0, -1], [-2, 2, 2, -2], [-1, 5, 5, -1]], dtype=np.float64)
"""The mean frontal film in 4 x 4 fields, rounded: dark beside neck and arms, bright at heart and abdomen."""
INVERTED = -0.35
"""Correlation with `FRONTAL_FILM` below which a film looks inverted.

Of 377 whole training films none lies below it, and of their negatives all but one; of 205 parts of films, which hold
any region of a chest, four lie below.
"""


def check_content(image: Image, modality: str) -> tuple[str, ...]:
    """Return a sentence for each sign that an image is not what the models expect.

    Args:
        image: image to enlarge, of at least `unit.SMALLEST_SIDE` pixels along each side.
        modality: modality of the bundle, "CXR", "CT" or "any", for an image that does not state its own.
    """
    own_modality = modality if image.modality == "unknown" else image.modality
    return (*_check_header(image, modality), *_check_spacing(image), *_check_values(image, own_modality))


def _check_header(image: Image, modality: str) -> Iterator[str]:
    if describes_result(image.derivation):
        yield "This is a result of this program: what was enlarged is enlarged again. Take the original."
    if image.format != "dicom" or not image.header:
        return
    # Not above: a viewer without DICOM files starts sooner.
    from monai_sr_bundle.images.dicom_file import items_of
    from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForProcessing

    header = image.header[0]
    if header.get("BurnedInAnnotation") == "YES":
        yield "Text is burned into the pixels: it is enlarged like anatomy, and may name the patient."
    if header.SOPClassUID == CTImageStorage:
        return
    if "Secondary Capture" in header.SOPClassUID.name and header.get("ConversionType") != DIGITIZED_FILM:
        yield "This is a Secondary Capture, such as a screenshot: its grey levels may have been cut for display."
    if modality != "CXR":
        return
    if header.SOPClassUID == DigitalXRayImageStorageForProcessing or (
        header.get("PresentationIntentType") == "FOR PROCESSING"
    ):
        yield "The film is FOR PROCESSING, as the detector measured it; the model knows films FOR PRESENTATION alone."
    orientation = header.get("PatientOrientation") or [""]
    is_coded = any(str(item.get("CodeValue")) in LATERAL_CODES for item in items_of(header, "ViewCodeSequence"))
    if is_coded or str(header.get("ViewPosition") or "").upper() in LATERAL_VIEWS or orientation[0] in ("A", "P"):
        yield "This is a lateral view; the model knows frontal films alone."


def _check_spacing(image: Image) -> Iterator[str]:
    if not image.grid.in_millimetres:
        return
    x, y, _ = image.grid.spacing_xyz
    _, rows, columns = image.pixels.shape
    if min(x, y) < SMALLEST_PIXEL_MM or max(columns * x, rows * y) > LARGEST_EXTENT_MM:
        yield (
            f"The pixel spacing cannot be right: {y:.4g} x {x:.4g} mm make an image of {rows * y:.4g} x "
            f"{columns * x:.4g} mm. Measure nothing in it, or correct it with --spacing-mm."
        )


def _check_values(image: Image, modality: str) -> Iterator[str]:
    """Yield a sentence where CT has no values of CT, a radiograph has them, or black and white are exchanged.

    CT is air and soft tissue, with little between them or above: in each of 453 real slices, at most 13 %. Of 649 real
    films, stored with 8 to 16 bits in both polarities, none was taken for a CT, and of these slices, plus 1024, all but
    one; in a CT's place with an intercept of -1024, all films but two of 10 bits were noticed.
    """
    middle = image.pixels[len(image.pixels) // 2]
    lowest = min(image.slope * float(end) + image.intercept for end in (middle.min(), middle.max()))
    step = max(1, min(middle.shape) // 128)
    # What is called a radiograph would be CT with 1024 added, to be stored without a sign.
    hu = image.slope * middle[::step, ::step].astype(np.float64) + image.intercept - (modality == "CXR") * 1024
    air, between, tissue, dense = np.histogram(hu, (-np.inf, -600, -200, 200, np.inf))[0] / hu.size
    if modality == "CT" and (lowest > AIR_HU or between + dense > 0.3 or tissue < 0.01):
        reason = f"Nothing in the middle slice is as dark as air ({AIR_HU:g} HU or less)"
        reason = reason if lowest > AIR_HU else "Too little of the middle slice is air or soft tissue"
        yield f"{reason}: its numbers are no HU, or this is no chest CT."
    elif modality == "CXR" and (lowest <= AIR_HU or (min(air, tissue) > 0.1 and between < 0.06 and dense < 0.12)):
        words = f"go down to {lowest:.4g}" if lowest <= AIR_HU else "are those of air and soft tissue plus 1024"
        yield f"Its values {words}, as in CT: it may be no radiograph."
    elif modality == "CXR" and image.format != "nifti" and _looks_inverted(image):
        yield (
            "Black and white look exchanged: air is bright, and bone is dark. Correct Photometric Interpretation "
            "(0028,0004), or invert the picture."
        )


def _looks_inverted(image: Image) -> bool:
    rows, columns = (side - side % 4 for side in image.pixels.shape[1:])
    fields = image.pixels[0, :rows, :columns].reshape(4, rows // 4, 4, columns // 4).mean(axis=(1, 3), dtype=np.float64)
    if fields.std() == 0:
        return False
    sign = -1 if image.black_is_high != (image.slope < 0) else 1
    return bool(sign * np.corrcoef(fields.ravel(), FRONTAL_FILM.ravel())[0, 1] < INVERTED)


FEWEST_SLICES = 3
"""Number of slices that a network needs to see a change from slice to slice."""
THICKNESS_SHARE = 0.05
"""Largest relative difference between thickness and distance that counts as rounding in the header."""


def check_slices(image: Image, bundle: str) -> tuple[str, ...]:
    """Raise an error if thin slices cannot be made of an image; the readers have refused uneven slices.

    Args:
        image: image to enlarge along its slices.
        bundle: name of the bundle, for messages.

    Returns:
        Remarks for the reader of the result, one sentence each.

    Raises:
        InputError: a radiograph or another single slice, fewer than `FEWEST_SLICES`, the frames of one DICOM file, or
            a DICOM series of unknown pixel spacing.
    """
    slices = image.pixels.shape[0]
    if slices < FEWEST_SLICES:
        input_kind = "a single slice or a radiograph" if slices == 1 else f"{slices} slices"
        raise InputError(
            f"{image.path.name}: {input_kind}, but bundle {bundle} makes thin slices of thick ones, expected a volume "
            f"of at least {FEWEST_SLICES} slices. Pass the whole series, or name a bundle that enlarges in the plane."
        )
    if image.format != "dicom":
        return ()
    if len(image.header) != slices:
        raise InputError(
            f"{image.path.name}: {slices} frames in one DICOM file, but bundle {bundle} writes a file for each new "
            "slice, expected a series of single slices. Split the file, or convert it to NIfTI."
        )
    if not image.grid.in_millimetres:
        raise InputError(
            f"{image.path.name}: new slices need positions in millimetres, and the source's pixel spacing is unknown. "
            "Enlarge within the slices only, or pass --spacing-mm ROW COLUMN."
        )
    thicknesses, distance = _measure_slices(image)
    if slices_touch(image):
        return ()
    thinnest, thickest = min(thicknesses), max(thicknesses)
    means = "averaging the new slices does not give back the slices"
    geometry = f"The slices are {thickest:.4g} mm thick and lie {distance:.4g} mm apart"
    if thickest > (1 + THICKNESS_SHARE) * thinnest:
        geometry = f"The slices are between {thinnest:.4g} and {thickest:.4g} mm thick"
        return (f"{geometry}: they are taken as equal, and {means}.",)
    if thickest < distance:
        return (f"{geometry}: the new slices in the gaps are guessed, and {means}.",)
    return (f"{geometry}: they overlap, the new slices are less certain, and {means}.",)


def slices_touch(image: Image) -> bool:
    """Return whether every slice is as thick as slices are apart; True where the image states no thickness.

    Only then is a slice the mean of the thin ones in its place: one that overlaps its neighbours averages theirs too.
    """
    thicknesses, distance = _measure_slices(image)
    return all(abs(thickness - distance) <= THICKNESS_SHARE * distance for thickness in thicknesses)


def _measure_slices(image: Image) -> tuple[list[float], float]:
    """Return the stated thicknesses of slices, none where there are none, and their distance, in millimetres."""
    if image.format != "dicom" or len(image.header) != len(image.pixels):
        return [], 0.0
    from monai_sr_bundle.images.dicom_geometry import numbers  # for DICOM files alone

    thicknesses = [
        value[0] for header in image.header if (value := numbers(header, "SliceThickness", 1)) and value[0] > 0
    ]
    return thicknesses, image.grid.spacing_xyz[2] if thicknesses else 0.0


FINE_BAND, MIDDLE_BAND = (0.35, 0.5), (0.1, 0.25)
"""Bands of spatial frequency, in cycles per pixel, whose energies give the sharpness."""
LEAST_SIDE = 32
"""Smallest side of an image that is measured."""
LARGEST_SIDE = 1024
MAY_NOT_HOLD = "its figures and error bars may not hold here"
MIDDLE, MIDDLE_MEAN_OF_NOISE = (0.35, 0.65), 0.6807
"""Quantiles of second differences that noise is measured between, and their mean for noise of standard deviation 1."""


class MeasureName(NamedTuple):
    """The words for a measure, its unit, and the adjectives of an input below and above the known range."""

    words: str
    unit: str
    below: str
    above: str


NAMES = {
    "slice_spacing_mm": MeasureName("new slice spacing", "mm", "finer", "coarser"),
    "sharpness_db": MeasureName("sharpness", "dB", "less sharp", "sharper"),
    "noise_percent": MeasureName("noise", "% of the window", "less noisy", "noisier"),
    "contrast_percent": MeasureName("contrast", "% of the window", "lower in contrast", "higher in contrast"),
}


def measure_sharpness_and_noise(image: np.ndarray) -> dict[str, float]:
    """Measure the sharpness, noise and contrast of an input.

    Args:
        image: ``[rows, columns]`` in units of the window.

    Returns:
        `sharpness_db`: ratio of the energies of the finest and middle frequencies. `noise_percent`: standard deviation
        of the noise, by Immerkaer ("Fast noise variance estimation", CVIU 64(2), 1996), in percent of the
        window. `contrast_percent`: distance of the 5th and the 95th percentile of the pixels, in percent of the window.
        Empty for an image smaller than `LEAST_SIDE`.
    """
    if min(image.shape) < LEAST_SIDE:
        return {}
    part = crop_measured(image).astype(np.float32, copy=False)
    return dict(_measure_sharpness_and_noise(part.tobytes(), part.shape))


def crop_measured(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image ``[rows, columns]``: the part of a large one that is measured."""
    top, left = (max(0, (side - LARGEST_SIDE) // 2) for side in image.shape)
    return image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


@lru_cache(maxsize=2)
def _measure_sharpness_and_noise(content: bytes, shape: tuple[int, int]) -> dict[str, float]:
    """Measure float32 pixels; cached, because a viewer enlarges many regions of the same image."""
    pixels = np.frombuffer(content, np.float32).reshape(shape).astype(np.float64)
    second = pixels[:-2] - 2 * pixels[1:-1] + pixels[2:]
    fourth = second[:, :-2] - 2 * second[:, 1:-1] + second[:, 2:]
    return {
        "sharpness_db": band_ratio(pixels, FINE_BAND, MIDDLE_BAND),
        "noise_percent": float(100 * _middle_mean(np.abs(fourth)) / (6 * MIDDLE_MEAN_OF_NOISE)),
        "contrast_percent": float(100 * np.diff(np.percentile(pixels, (5, 95)))[0]),
    }


def _middle_mean(values: np.ndarray) -> float:
    """Return the mean of the values between the quantiles of `MIDDLE`.

    As a median it ignores the edges of bones and letters; but the median of whole grey levels is a whole one.
    """
    first, last = (int(quantile * (values.size - 1)) for quantile in MIDDLE)
    return float(np.partition(values, (first, last), axis=None)[first : last + 1].mean())


def band_ratio(pixels: np.ndarray, band: tuple[float, float], reference: tuple[float, float]) -> float:
    """Return the energy of a band of spatial frequency over that of another one, in dB."""
    # A window, so that the borders do not count as edges.
    power = np.abs(np.fft.fft2((pixels - pixels.mean()) * np.outer(*(np.hanning(side) for side in pixels.shape)))) ** 2
    rows, columns = (np.fft.fftfreq(side) for side in pixels.shape)
    frequency = np.hypot(rows[:, None], columns[None, :])
    one, other = (power[(frequency >= low) & (frequency < high)].mean() + 1e-12 for low, high in (band, reference))
    return float(10 * np.log10(one / other))


def describe_outside(measured: Mapping[str, float], limits: Mapping[str, Sequence[float]]) -> str:
    """Return by which measure an input is outside the limits of a bundle, in words; empty where it is inside."""
    for name, comparison in compare_input(measured, limits).items():
        words, unit, below, above = NAMES[name]
        if comparison.side:
            return (
                f"it is far {below if comparison.side < 0 else above} than anything that the model was trained on "
                f"({words} {comparison.value:.3g} {unit}, limits {comparison.low:.3g} and {comparison.high:.3g})"
            )
    return ""


class InputComparison(NamedTuple):
    """A measure of an input and its range over the training inputs.

    Attributes:
        value: measure of the input; None if the image is too small, or the distance of its slices unknown.
        low, high: ends of the known range.
    """

    value: float | None
    low: float
    high: float

    @property
    def side(self) -> int:
        """-1 below the known range, 1 above it, 0 inside or unknown, after rounding to the printed digits."""
        if self.value is None:
            return 0
        value, low, high = (float(f"{number:.3g}") for number in (self.value, self.low, self.high))
        return int(value > high) - int(value < low)


def compare_input(measured: Mapping[str, float], ranges: Mapping[str, Sequence[float]]) -> dict[str, InputComparison]:
    """Return the measures of an input with the known ranges of a model's training inputs."""
    return {name: InputComparison(measured.get(name), *ranges[name]) for name in NAMES if name in ranges}


def is_too_small(comparison: Mapping[str, InputComparison]) -> bool:
    """Return whether an input has too few pixels to be measured."""
    return "sharpness_db" in comparison and comparison["sharpness_db"].value is None


def describe_differences(comparison: Mapping[str, InputComparison]) -> list[str]:
    """Return a sentence for each measure of an input that is outside the range of the training inputs."""
    if is_too_small(comparison):
        return [
            f"The input has fewer than {LEAST_SIDE} pixels along one side, too few to be compared with those the model "
            f"was trained on: {MAY_NOT_HOLD}."
        ]
    return [
        f"The input is {NAMES[name].below if measure.side < 0 else NAMES[name].above} than those the model was trained "
        f"on ({NAMES[name].words} {measure.value:.3g} {NAMES[name].unit}, known {measure.low:.3g} to "
        f"{measure.high:.3g}): {MAY_NOT_HOLD}."
        for name, measure in comparison.items()
        if measure.side
    ]
