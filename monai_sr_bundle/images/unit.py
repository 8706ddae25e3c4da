"""Convert stored numbers to the unit range of networks and back; check that an image can be enlarged."""

from __future__ import annotations

import numpy as np

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.image import Image, require_finite

SMALLEST_SIDE = 8
LARGEST_VALUE, SMALLEST_RANGE = 1e15, 1e-30
"""Largest value of a pixel, and smallest difference of two, that arithmetic in float64 does not lose."""
STRIP = 64
"""Number of rows converted at a time: in float64, a whole film would be large and three times as slow."""
Window = tuple[float, float]


def value_window(image: Image, modality: str, window: Window) -> Window:
    """Return the values that become 0 and 1 inside the model.

    CT has a fixed HU window. The window of an 8-bit radiograph is all 256 grey levels; with more bits, of which each
    maker uses another range, it is the range of the pixels. No value is clipped.

    Args:
        image: image to enlarge.
        modality: modality of the bundle: "CXR", "CT" or "any".
        window: window of the bundle, in HU or grey levels of 8 bits.
    """
    low, high = float(window[0]), float(window[1])
    if modality == "CT" or (image.stored_range == (0, 255) and image.slope == 1 and image.intercept == 0):
        return low, high
    extremes = (float(image.pixels.min()), float(image.pixels.max()))
    low, high = sorted(extreme * image.slope + image.intercept for extreme in extremes)
    return (low, high) if high - low > SMALLEST_RANGE else (low, low + 1.0)


def from_stored(image: Image, stored: np.ndarray, window: Window) -> np.ndarray:
    """Convert stored numbers of any shape for the network: float32, 0 and 1 at the window's ends, not clipped."""
    low, high = window
    unit = np.empty(stored.shape, dtype=np.float32)
    for start in range(0, len(stored), STRIP):
        strip = slice(start, start + STRIP)
        values = stored[strip].astype(np.float64) * image.slope + image.intercept
        # Inside the model, larger values are always whiter, as in its training images.
        unit[strip] = (high - values if image.black_is_high else values - low) / (high - low)
    return unit


def stored_limits(image: Image, window: Window) -> tuple[float, float] | None:
    """Return the range of values inside the model that the image's storage can hold; None for floats."""
    if image.stored_range is None:
        return None
    low, high = window
    values = [end * image.slope + image.intercept for end in image.stored_range]
    ends = [(high - value if image.black_is_high else value - low) / (high - low) for value in values]
    return min(ends), max(ends)


def to_stored(image: Image, unit: np.ndarray, window: Window) -> np.ndarray:
    """Convert values of a network to the storage of `image`, rounded and clipped if that holds integers."""
    low, high = window
    above = unit.astype(np.float64) * (high - low)
    stored = ((high - above if image.black_is_high else low + above) - image.intercept) / image.slope
    if image.stored_range is None:
        return stored.astype(image.pixels.dtype)
    return np.clip(np.rint(stored), *image.stored_range).astype(image.pixels.dtype)


def check_pixels(image: Image) -> None:
    """Raise an error if the image is too small or has values that cannot be computed with.

    Raises:
        InputError: smaller than 8x8 pixels; NaN, infinite or enormous values; a slope that leaves no difference.
    """
    _, rows, columns = image.pixels.shape
    if min(rows, columns) < SMALLEST_SIDE:
        raise InputError(
            f"{image.path.name}: {columns}x{rows} pixels, expected at least {SMALLEST_SIDE}x{SMALLEST_SIDE}. "
            "It is too small to predict detail from; choose a larger image."
        )
    require_finite(image.pixels, image.path)
    extremes = (float(image.pixels.min()), float(image.pixels.max()))
    largest = max(abs(extreme * image.slope + image.intercept) for extreme in extremes)
    if not (largest <= LARGEST_VALUE and abs(image.slope) > SMALLEST_RANGE):
        raise InputError(
            f"{image.path.name}: its values reach {largest:g} (stored {extremes[0]:g} to {extremes[1]:g}, slope "
            f"{image.slope:g}, intercept {image.intercept:g}), expected at most {LARGEST_VALUE:g} and a slope above "
            f"{SMALLEST_RANGE:g}. Export it again with another scaling."
        )


def check_modality(image: Image, modality: str, bundle: str, *, force: bool = False) -> tuple[str, ...]:
    """Raise an error if the image has another modality than the bundle.

    Args:
        image: image to enlarge.
        modality: modality of the bundle: "CXR", "CT" or "any".
        bundle: name of the bundle, for messages.
        force: accept another modality. Default False.

    Returns:
        Remarks on the modality for the user, one sentence each.

    Raises:
        InputError: the modality does not fit and `force` is not set.
    """
    if modality in ("any", image.modality):
        return ()
    if image.modality == "unknown":
        if image.format in ("png", "jpeg", "tiff"):
            return ()  # no picture names it: said of each, it says nothing
        words = "a chest X-ray" if modality == "CXR" else modality
        return (f"The file does not name its modality; taken as {words}.",)
    if not force:
        raise InputError(
            f"{image.path.name}: this is {image.modality}, but bundle {bundle} is made for {modality}. "
            f"Leave out --bundle to get the one for {image.modality}, or pass --force to use it nevertheless."
        )
    return (f"Bundle {bundle} is made for {modality} and was forced onto {image.modality}.",)
