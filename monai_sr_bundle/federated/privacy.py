"""The privacy section of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from monai_sr_bundle.errors import InputError

LISTED_ONLY = "monai_sr_bundle.federated.filters.ListedOnly"
CLIP_AND_NOISE = "monai_sr_bundle.federated.filters.ClipAndNoise"
FILTERS = (LISTED_ONLY, CLIP_AND_NOISE)
"""Filters of which every answer of a site passes one."""
_PROTECTED = ("training", "difference")


@dataclass(frozen=True)
class Privacy:
    """Protection of the patients whose images a study trains with; by default, their images only stay at home.

    Attributes:
        protect: "training" for DP-SGD at the sites, "difference" to clip a round's whole difference and add noise to
            it; None for neither. A real site decides on the second itself, in its privacy.json.
        noise_multiplier: standard deviation of the noise in units of `clip`.
        clip: largest L2 norm of the gradient of one patient, or of the difference of a round.
        epsilon, delta: budget of every simulated site; a real one has its own.
    """

    protect: str | None = None
    noise_multiplier: float = 1.0
    clip: float = 1.0
    epsilon: float = 8.0
    delta: float = 1e-5

    @property
    def task_keys(self) -> dict[str, float]:
        """Return the keys of a `TrainingTask` that ask for DP-SGD."""
        if self.protect != "training":
            return {}
        return {"private_noise": self.noise_multiplier, "private_clip": self.clip}

    def result_filters(self, bundle: str) -> tuple[dict[str, Any], ...]:
        """Return the filters of simulated sites, as a real site has them in its privacy.json.

        Args:
            bundle: name of the bundle that is trained.
        """
        if self.protect != "difference":
            return ({"path": LISTED_ONLY, "args": {"bundle": bundle}},)
        arguments = {"bundle": bundle, "clip": self.clip, "noise_multiplier": self.noise_multiplier}
        return ({"path": CLIP_AND_NOISE, "args": arguments},)


def parse_privacy(content: object) -> Privacy:
    """Return the privacy section of a study's text.

    Args:
        content: its keys; None if the text has no such section.

    Raises:
        InputError: a key is unknown or out of bounds.
    """
    if content is None:
        return Privacy()
    keys = ("protect", "noise_multiplier", "clip", "epsilon", "delta")
    if not isinstance(content, Mapping) or not {"protect"} <= set(content) <= set(keys):
        raise InputError(f"privacy is {content!r}, expected protect and perhaps {', '.join(keys[1:])}.")
    values: dict[str, Any] = dict(content)
    if values["protect"] not in _PROTECTED:
        raise InputError(f"privacy: protect is {values['protect']!r}, expected {' or '.join(_PROTECTED)}.")
    for key in keys[1:]:
        if isinstance(values.get(key), str):  # as YAML reads 1e-5
            with suppress(ValueError):
                values[key] = float(values[key])
        value = values.get(key, 1e-5)
        if type(value) not in (int, float) or not 0 < value < (1 if key == "delta" else math.inf):
            bound = "between 0 and 1" if key == "delta" else "above 0"
            raise InputError(f"privacy: {key} is {value!r}, expected a number {bound}.")
    return Privacy(**values)
