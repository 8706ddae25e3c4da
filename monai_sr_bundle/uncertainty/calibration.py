"""Calibrations: factors that turn a bundle's error scale into error bars, and the data they were measured on.

One lies in each bundle that has error bars. A hospital makes its own with `monai-sr calibrate`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import ERROR_BARS_DEF, Bundle, combined_sha256
from monai_sr_bundle.errors import BundleError, InputError, quote
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.images.staging import write_file

FILE = "calibration.json"
SCHEMA = "monai-sr-calibration/2"
RANDOM_LOSSES = "random_degradation"
"""Name in place of an operator's, for losses of resolution drawn by `transforms.random_degradation`."""


@dataclass(frozen=True)
class CalibrationEntry:
    """The calibration factor for one set of sampler settings, one scale and one strength.

    Attributes:
        sampling: sampler settings of the images; None for a network of one pass.
        factor: number that the error scale is multiplied by.
        coverage: share of the pixels inside their error bars, mean over the patients of the calibration.
        half_width: mean half-width of the error bars over the images, in units of the window.
        scale: output pixels per input pixel, where each scale of the bundle has error bars of its own; else None.
        strength: share of the noise that was taken away, of a bundle that reduces noise; else None.
        guaranteed: share of the pixels that is expected inside at least, on average over further patients like those of
            the calibration, where these are too few for the factor to be corrected for their number; else None.
    """

    sampling: Sampling | None
    factor: float
    coverage: float
    half_width: float
    scale: int | None = None
    strength: float | None = None
    guaranteed: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The content of a `calibration.json`.

    Attributes:
        bundle, version: name and version of the bundle it belongs to.
        weights_sha256: `bundle_sha256` of this bundle.
        operator: degradation that reduced the images, or `RANDOM_LOSSES`.
        alpha: share of the pixels that may be outside their error bars.
        images, patients: number of images and patients measured.
        data: names of the image sets, e.g. "cxr_nih", or of the folder.
        split: split of their manifest.
        manifest_sha256: SHA-256 of the images' manifest.
        created: date of the calibration.
        entries: one factor for each set of sampler settings.
    """

    bundle: str
    version: str
    weights_sha256: str
    operator: str
    alpha: float
    images: int
    patients: int
    data: str
    split: str
    manifest_sha256: str
    created: str
    entries: tuple[CalibrationEntry, ...]

    @property
    def coverage_percent(self) -> float:
        """Return the percentage of the pixels that the error bars are to cover."""
        return round(100 * (1 - self.alpha), 3)

    def guaranteed_percent(self, entry: CalibrationEntry) -> float | None:
        """Return the mean coverage that an entry guarantees over further patients, in percent.

        None stands for `coverage_percent`.
        """
        return None if entry.guaranteed is None else round(100 * entry.guaranteed, 1)

    def find(
        self, sampling: Sampling | None, scale: int | None = None, strength: float | None = None
    ) -> CalibrationEntry | None:
        """Return the entry for sampler settings, a scale and a strength, or None.

        Between two calibrated textures it is the entry of the higher one, whose errors are larger.
        """
        entries = [entry for entry in self.entries if (entry.scale, entry.strength) == (scale, strength)]
        if sampling is None or sampling.texture is None:
            return next((entry for entry in entries if entry.sampling == sampling), None)
        candidates = [
            (entry.sampling.texture, entry)
            for entry in entries
            if entry.sampling
            and entry.sampling[:3] == sampling[:3]
            and (entry.sampling.texture or 0) >= sampling.texture
        ]
        return min(candidates, key=lambda pair: pair[0] or 0)[1] if candidates else None

    def require(
        self, sampling: Sampling | None, scale: int | None = None, strength: float | None = None
    ) -> CalibrationEntry:
        """Return the entry for sampler settings, a scale and a strength.

        Raises:
            InputError: the calibration has no such entry.
        """
        entry = self.find(sampling, scale, strength)
        if entry is None:
            calibrated = "; ".join(_describe(entry.sampling, entry.scale, entry.strength) for entry in self.entries)
            way_out = (
                f"Draw like this, or calibrate with `monai-sr calibrate {self.bundle}{_sampling_options(sampling)}`."
                if all(entry.strength == strength for entry in self.entries)
                else "Leave --strength out, or go without error bars."
            )
            raise InputError(
                f"the error bars of {self.bundle} are not calibrated for {_describe(sampling, scale, strength)}, but "
                f"for: {calibrated}. {way_out}"
            )
        return entry

    def write(self, path: Path) -> None:
        """Write the calibration as JSON; the file is complete or absent.

        Raises:
            OutputError: the file cannot be written.
        """
        entries = [{**asdict(entry), "sampling": entry.sampling and entry.sampling._asdict()} for entry in self.entries]
        text = json.dumps({"schema": SCHEMA, **asdict(self), "entries": entries}, indent=2)
        write_file(path, f"{text}\n".encode())


def bundle_sha256(bundle: Bundle) -> str:
    """Return one SHA-256 of all PyTorch weights of a bundle, whichever backend computes."""
    hashes = bundle.metadata["weights_sha256"]
    return combined_sha256({name: hashes[name] for name in hashes if name.endswith(".pt")})


def calibrated_operator(bundle: Bundle) -> str:
    """Return the operator that reduces images to calibrate a bundle, or `RANDOM_LOSSES`."""
    return RANDOM_LOSSES if ERROR_BARS_DEF in bundle.facts else bundle.operator


def calibrated_scale(bundle: Bundle) -> int | None:
    """Return the scale of a bundle's calibration entries: its own, where each scale has one, else None."""
    return bundle.scale if ERROR_BARS_DEF in bundle.facts else None


def read_calibration(path: Path, bundle: Bundle) -> Calibration:
    """Read a calibration and make sure that it belongs to a bundle.

    Raises:
        InputError: the file cannot be read, lacks a number, or holds an impossible one.
        BundleError: the calibration belongs to other weights or another degradation.
    """
    try:
        calibration = _parse_calibration(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as a calibration ({quote(error) or type(error).__name__}). "
            f"Make one with `monai-sr calibrate {bundle.name} --data DIR --out FILE`."
        ) from error
    if calibration.weights_sha256 != bundle_sha256(bundle):
        raise BundleError(
            f"{path}: was made for {calibration.bundle} {calibration.version} with weights "
            f"{calibration.weights_sha256[:12]}, but this is {bundle.name} {bundle.version} with "
            f"{bundle_sha256(bundle)[:12]}. Error bars of other weights mean nothing; make new ones with "
            f"`monai-sr calibrate {bundle.name} --data DIR`."
        )
    if calibration.operator != calibrated_operator(bundle):
        raise BundleError(
            f"{path}: was made for inputs reduced by {calibration.operator}, but {bundle.name} undoes "
            f"{calibrated_operator(bundle)}. Make a new one with `monai-sr calibrate {bundle.name} --data DIR`."
        )
    return calibration


def _describe(sampling: Sampling | None, scale: int | None, strength: float | None) -> str:
    words = "one pass" if sampling is None else sampling.words
    at_scale = "" if scale is None else f" at scale {scale}"
    return words + at_scale + ("" if strength is None else f" with strength {strength:g}")


def _sampling_options(sampling: Sampling | None) -> str:
    if sampling is None:
        return ""
    texture = "" if sampling.texture is None else f" --texture {sampling.texture:g}"
    return f"{texture} --steps {sampling.steps} --samples {sampling.samples}"


def _parse_calibration(content: Mapping[str, Any]) -> Calibration:
    facts = dict(content)
    schema = facts.pop("schema", None)
    if schema != SCHEMA:
        raise ValueError(f"schema is {schema}, expected {SCHEMA}")
    entries = tuple(
        CalibrationEntry(**{**entry, "sampling": Sampling(**entry["sampling"]) if entry["sampling"] else None})
        for entry in facts.pop("entries")
    )
    calibration = Calibration(**facts, entries=entries)
    if not 0 < calibration.alpha < 1 or not entries or any(not 0 < entry.factor < math.inf for entry in entries):
        raise ValueError("expected alpha between 0 and 1 and at least one factor above 0")
    text_keys = ("bundle", "version", "weights_sha256", "operator", "data", "split", "created")
    if not all(isinstance(facts[key], str) and facts[key] for key in text_keys):
        raise ValueError("expected text for bundle, version, weights_sha256, operator, data, split and created")
    if not all(isinstance(count, int) and count > 0 for count in (calibration.images, calibration.patients)):
        raise ValueError("expected at least one image and one patient")
    for entry in entries:
        texture = entry.sampling.texture if entry.sampling else None
        shares = (entry.coverage, texture, entry.strength, entry.guaranteed)
        if not (entry.half_width > 0 and all(0 <= share <= 1 for share in shares if share is not None)):
            raise ValueError(
                "expected coverage and texture from 0 to 1, as strength and guaranteed, and a half-width above 0"
            )
    return calibration
