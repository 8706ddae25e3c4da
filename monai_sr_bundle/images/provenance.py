"""How a result was made: what the DICOM, the report and the picture's tags say about it, in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

_OF_RESULT = re.compile(r"Super-resolution x\d+( x\d+)*( along the slices)?(,| by) \S")
NOT_FOR_DIAGNOSIS = "Detail finer than the source spacing is predicted, not measured. Not for diagnosis."


class Sampling(NamedTuple):
    """How a diffusion model or a flow drew the result.

    Attributes:
        sampler: "ddpm", "ddim" or "flow".
        steps: from noise to image.
        samples: images whose mean the result is.
        texture: how much of what a flow has drawn was added to the expected image, 0 to 1; None of a diffusion model.
    """

    sampler: str
    steps: int
    samples: int
    texture: float | None = None

    @property
    def words(self) -> str:
        """As "ddim in 20 steps, mean of 8 samples", or "texture 0.5 by flow in 4 steps"."""
        texture = "" if self.texture is None else f"texture {self.texture:g} by "
        mean = "" if self.samples == 1 else f", mean of {self.samples} samples"
        return f"{texture}{self.sampler} in {self.steps} step{'s' * (self.steps != 1)}{mean}"


@dataclass(frozen=True)
class Provenance:
    """Everything needed to make the same result again.

    Attributes:
        bundle, version: name and version of the bundle.
        weights_sha256: of the weights file used, `bundles.combined_sha256` of several; empty for a method without
            weights (bicubic).
        manufacturer: who made the bundle, from its metadata's authors.
        scale_zyx: output samples per input sample.
        operator: the degradation the model was trained to undo, as `bicubic_antialias_x4`.
        generative: the result may contain generated texture (DICOM Synthetic Data is then YES).
        backend, device: what computed it ("torch", "onnx"; "cpu", "cuda:0").
        seed: of the noise; the same seed gives the same pixels.
        sampling: of a diffusion model; None for one pass through the network.
        findings: sentences on what was measured of the result, for its DICOM; empty where nothing was.
        removed_places: where something that was put on the image, as a marker, was taken away.
        roi_xyxy: region in input pixels, upper edge excluded, or None for the whole image.
        slices: first slice of the input and the one after the last, or None for all.
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

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `of` makes the same provenance of it again."""
        told = {**vars(self), "created": self.created.isoformat()}
        return told | {"sampling": self.sampling._asdict() if self.sampling else None}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Provenance:
        """What `as_dict` has told, after JSON has made lists of tuples."""
        facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        facts["created"] = datetime.fromisoformat(facts["created"])
        facts["sampling"] = Sampling(**facts["sampling"]) if facts["sampling"] else None
        return cls(**facts)

    @property
    def synthetic(self) -> bool:
        """Whether pixels were made up: texture was generated, or what was removed filled in."""
        return self.generative or self.removed_places > 0

    @property
    def factor(self) -> str:
        """The scale in words: "x4", "x4 along the slices", or "x4 x4 x2" for columns, rows and slices."""
        z, y, x = self.scale_zyx
        if x == y == 1 < z:
            return f"x{z} along the slices"
        in_plane = f"x{x}" if x == y else f"x{x} x{y}"
        return in_plane if z == 1 else f"x{x} x{y} x{z}"

    @property
    def sentence(self) -> str:
        """One ASCII sentence for DICOM Derivation Description and picture tags (at most 1024 characters)."""
        weights = f", weights sha256 {self.weights_sha256[:12]}" if self.weights_sha256 else ""
        drawn = f", {self.sampling.words}" if self.sampling else ""
        how = f"Super-resolution {self.factor} by {self.bundle} {self.version}{weights}{drawn}, seed {self.seed}."
        count = f"{self.removed_places} place{'s' * (self.removed_places != 1)}"
        removed = f" Markers or what looked like them were removed in {count}." if self.removed_places else ""
        return f"{how}{removed} {NOT_FOR_DIAGNOSIS}"


def describes_result(text: str) -> bool:
    """Return whether a text in a file's header is one that a result of this package has there.

    Args:
        text: DICOM derivation description, NIfTI `descrip` or description of a picture.
    """
    return _OF_RESULT.search(text) is not None
