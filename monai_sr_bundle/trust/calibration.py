"""A calibration: the factors that make error bars of a bundle's scale of errors, and what they were measured on.

One lies in each bundle that has error bars. A hospital makes its own with `monai-sr calibrate`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import Bundle, combined_sha256
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.provenance import Sampling

FILE = "calibration.json"
SCHEMA = "monai-sr-calibration/2"
OLD_SCHEMA = "monai-sr-calibration/1"
"""What version 0.1.0 wrote, whose results may be others than those of today."""


@dataclass(frozen=True)
class Entry:
    """The factor for one way to draw.

    Attributes:
        sampling: how the images were drawn; None for one pass.
        factor: of the scale of errors.
        coverage: share of the pixels inside, mean over the patients it was measured on.
        half_width: of the error bars, mean over their images, in units of the window.
    """

    sampling: Sampling | None
    factor: float
    coverage: float
    half_width: float


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` says.

    Attributes:
        bundle, version: it belongs to.
        weights_sha256: of all weights of the bundle, `bundle_sha256`.
        operator: the degradation the images were reduced by.
        alpha: share of the pixels that may be outside.
        images, patients: how many were measured.
        data: names of the sets, as "cxr_nih", or of the folder.
        split: of their manifest.
        manifest_sha256: of the images.
        created: date.
        entries: a factor for each way to draw.
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
    entries: tuple[Entry, ...]

    @property
    def coverage_percent(self) -> float:
        """The share of the pixels that the error bars promise to cover."""
        return round(100 * (1 - self.alpha), 3)

    def find(self, sampling: Sampling | None) -> Entry | None:
        """The factor for a way to draw, or None.

        Between two textures that were calibrated, that of the higher one, whose errors are larger.
        """
        if sampling is None or sampling.texture is None:
            return next((each for each in self.entries if each.sampling == sampling), None)
        above = [
            (each.sampling.texture, each)
            for each in self.entries
            if each.sampling and each.sampling[:3] == sampling[:3] and (each.sampling.texture or 0) >= sampling.texture
        ]
        return min(above, key=lambda pair: pair[0] or 0)[1] if above else None

    def entry(self, sampling: Sampling | None) -> Entry:
        """As `find`.

        Raises:
            InputError: there is none.
        """
        found = self.find(sampling)
        if found is None:
            known = "; ".join(_words(each.sampling) for each in self.entries)
            raise InputError(
                f"the error bars of {self.bundle} are not calibrated for {_words(sampling)}, but for: {known}. Draw "
                f"like this, or calibrate with `monai-sr calibrate {self.bundle}{_options(sampling)}`."
            )
        return found

    def write(self, path: Path) -> None:
        """Write it, complete or not at all.

        Raises:
            OutputError: as `write_file`.
        """
        entries = [{**asdict(each), "sampling": each.sampling and each.sampling._asdict()} for each in self.entries]
        text = json.dumps({"schema": SCHEMA, **asdict(self), "entries": entries}, indent=2)
        write_file(path, f"{text}\n".encode())


def bundle_sha256(bundle: Bundle) -> str:
    """One SHA-256 of all PyTorch weights of a bundle, whichever backend computes."""
    hashes = bundle.metadata["weights_sha256"]
    return combined_sha256({name: hashes[name] for name in hashes if name.endswith(".pt")})


def read_calibration(path: Path, bundle: Bundle) -> Calibration:
    """Read a calibration and make sure that it belongs to a bundle.

    Raises:
        InputError: it cannot be read, lacks a number, or states one that cannot be.
        BundleError: it belongs to other weights, or is one of version 0.1.0.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("schema") == OLD_SCHEMA:
            raise BundleError(
                f"{path}: was made with version 0.1.0, whose results may be others than those of today; make it again "
                f"with `monai-sr calibrate {bundle.name} --data DIR`."
            )
        found = _calibration(content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read as a calibration ({' '.join(str(error).split()) or type(error).__name__}). "
            f"Make one with `monai-sr calibrate {bundle.name} --data DIR --out FILE`."
        ) from error
    if found.weights_sha256 != bundle_sha256(bundle):
        raise BundleError(
            f"{path}: was made for {found.bundle} {found.version} with weights {found.weights_sha256[:12]}, but this "
            f"is {bundle.name} {bundle.version} with {bundle_sha256(bundle)[:12]}. Error bars of other weights mean "
            f"nothing; make new ones with `monai-sr calibrate {bundle.name} --data DIR`."
        )
    if found.operator != bundle.operator:
        raise BundleError(
            f"{path}: was made for inputs reduced by {found.operator}, but {bundle.name} undoes {bundle.operator}. "
            f"Make a new one with `monai-sr calibrate {bundle.name} --data DIR`."
        )
    return found


def _words(sampling: Sampling | None) -> str:
    return "one pass" if sampling is None else sampling.words


def _options(sampling: Sampling | None) -> str:
    if sampling is None:
        return ""
    texture = "" if sampling.texture is None else f" --texture {sampling.texture:g}"
    return f"{texture} --steps {sampling.steps} --samples {sampling.samples}"


def _calibration(content: Mapping[str, Any]) -> Calibration:
    facts = dict(content)
    if facts.pop("schema", None) != SCHEMA:
        raise ValueError(f"expected schema {SCHEMA}")
    entries = tuple(
        Entry(**{**each, "sampling": Sampling(**each["sampling"]) if each["sampling"] else None})
        for each in facts.pop("entries")
    )
    found = Calibration(**facts, entries=entries)
    if not 0 < found.alpha < 1 or not entries or any(not 0 < each.factor < math.inf for each in entries):
        raise ValueError("expected alpha between 0 and 1 and at least one factor above 0")
    words = (found.bundle, found.version, found.weights_sha256, found.operator, found.data, found.split, found.created)
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError("expected text for bundle, version, weights_sha256, operator, data, split and created")
    if not all(isinstance(count, int) and count > 0 for count in (found.images, found.patients)):
        raise ValueError("expected at least one image and one patient")
    for each in entries:
        texture = each.sampling.texture if each.sampling else None
        if not (0 <= each.coverage <= 1 and each.half_width > 0 and (texture is None or 0 <= texture <= 1)):
            raise ValueError("expected coverage and texture from 0 to 1 and a half-width above 0")
    return found
