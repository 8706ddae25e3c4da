"""The provenance of a result, as its DICOM, its report and its picture tags state it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

_RESULT_SENTENCE = re.compile(r"(Super-resolution|Interpolation) x\d+( x\d+)*( along the slices)?(,| by) \S")
NOT_FOR_DIAGNOSIS = "Detail finer than the source spacing is predicted, not measured. Not for diagnosis."
NOTHING_PREDICTED = "Nothing was predicted: there is no more detail than in the source. Not for diagnosis."


class Sampling(NamedTuple):
    """The sampling of a result by a diffusion model or a flow.

    Attributes:
        sampler: "ddpm", "ddim" or "flow".
        steps: number of steps from noise to image.
        samples: number of images whose mean is the result.
        texture: share of the flow's sample that was added to the expected image, 0 to 1; None for a diffusion model.
    """

    sampler: str
    steps: int
    samples: int
    texture: float | None = None

    @property
    def words(self) -> str:
        """The sampling in words: "ddim in 20 steps, mean of 8 samples", or "texture 0.5 by flow in 4 steps"."""
        texture = "" if self.texture is None else f"texture {self.texture:g} by "
        mean = "" if self.samples == 1 else f", mean of {self.samples} samples"
        return f"{texture}{self.sampler} in {self.steps} step{'s' * (self.steps != 1)}{mean}"


@dataclass(frozen=True)
class Provenance:
    """The bundle, settings and machine that made a result, enough to repeat it.

    Attributes:
        bundle, version: name and version of the bundle.
        weights_sha256: SHA-256 of the weights file, `bundles.combined_sha256` of several; empty for interpolation,
            which has none.
        manufacturer: authors of the bundle, from its metadata, without what stands in brackets.
        scale_zyx: output samples per input sample.
        operator: degradation that the model was trained to undo, such as `bicubic_antialias_x4`.
        generative: True if the result contains generated texture.
        backend, device: runtime (as "torch", "onnx") and device ("cpu", "cuda:0") that computed it.
        seed: seed of the noise; the same seed gives the same pixels.
        sampling: sampling of a diffusion model or a flow; None for one pass through the network.
        findings: sentences on measurements of the result, for its DICOM; empty without any.
        removed_places: number of artifacts, such as markers, that were removed from the image.
        roi_xyxy: region in input pixels, upper edge excluded, or None for the whole image.
        slices: first slice of the input and the one after the last, or None for all.
        strength: how much of the input's noise was taken away, 0 to 1; None for a bundle that is not made to.
        instead_of: name of the bundle that was asked for, where the image is outside its limits and was interpolated.
        created: local time with offset.
    """

    bundle: str
    version: str
    weights_sha256: str
    manufacturer: str
    scale_zyx: tuple[int, int, int]
    operator: str
    generative: bool
    backend: str
    device: str
    seed: int
    roi_xyxy: tuple[int, int, int, int] | None
    created: datetime
    sampling: Sampling | None = None
    findings: str = ""
    removed_places: int = 0
    slices: tuple[int, int] | None = None
    strength: float | None = None
    instead_of: str = ""

    @property
    def has_synthetic_pixels(self) -> bool:
        """True if pixels are synthetic: generated texture, or filled in where an artifact was removed."""
        return self.generative or self.removed_places > 0

    @property
    def is_interpolated(self) -> bool:
        """True if a formula made the pixels: it was chosen, or the image is outside the limits of a model."""
        return not self.weights_sha256

    @property
    def process(self) -> str:
        """The process as a noun: "Super-resolution" or "Interpolation"."""
        return "Interpolation" if self.is_interpolated else "Super-resolution"

    @property
    def factor(self) -> str:
        """The scale in words: "x4", or "x4 along the slices"."""
        z, _, x = self.scale_zyx
        return f"x{z} along the slices" if z > 1 else f"x{x}"

    @property
    def sentence(self) -> str:
        """One ASCII sentence for DICOM Derivation Description and picture tags (at most 1024 characters)."""
        weights = f", weights sha256 {self.weights_sha256[:12]}" if self.weights_sha256 else ""
        method = f", {self.sampling.words}" if self.sampling else ""
        noise = "" if self.strength is None else f", noise reduced with strength {self.strength:g} of 1"
        how = f"{self.process} {self.factor} by {self.bundle} {self.version}{weights}{method}{noise}, seed {self.seed}."
        count = f"{self.removed_places} place{'s' * (self.removed_places != 1)}"
        removed = f" Markers or what looked like them were removed in {count}." if self.removed_places else ""
        outside = f" The image is outside the limits of {self.instead_of}." if self.instead_of else ""
        return f"{how}{removed}{outside} {NOTHING_PREDICTED if self.is_interpolated else NOT_FOR_DIAGNOSIS}"


def describes_result(text: str) -> bool:
    """Return whether a text in a file's header is that of a result of this package.

    Args:
        text: DICOM derivation description, NIfTI `descrip` or description of a picture.
    """
    return _RESULT_SENTENCE.search(text) is not None
