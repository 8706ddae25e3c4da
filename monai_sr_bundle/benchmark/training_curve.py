"""Training of bundles: its minutes, validation PSNR over them, and after which of them it no longer rose."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError

GAINED_WITHIN_DB = 0.05


@dataclass(frozen=True)
class TrainingTime:
    """Minutes of a training, all stages together.

    Attributes:
        minutes: all of them.
        on_gpu: those on a GPU, which does in one what takes a CPU many.
    """

    minutes: float
    on_gpu: float = 0.0

    def __str__(self) -> str:
        on_cpu = f"{self.minutes - self.on_gpu:.0f}"
        return f"{on_cpu} + {self.on_gpu:.0f} on a GPU" if self.on_gpu else on_cpu


def training_time(metadata: Mapping[str, Any]) -> TrainingTime | None:
    """Return how long the bundle with this metadata was trained; None if it was not, or nobody recorded it."""
    training = metadata.get("training", {})
    if training.get("minutes") is None:
        return None
    on_gpu = sum(stage["minutes"] for stage in training.get("stages", []) if stage.get("device", "cpu") != "cpu")
    return TrainingTime(float(training["minutes"]), float(on_gpu))


def read_training_curve(bundle: Bundle) -> list[tuple[float, float]]:
    """Read minutes and validation PSNR of a bundle's training; empty if it was not recorded."""
    path = bundle.folder / "training_curve.csv"
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["metric"] == "psnr"]
        return [(float(row["minutes"]), float(row["value"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"bundle {bundle.name}: {path.name} cannot be read ({error!r}), expected the columns minutes, iteration, "
            "metric, value. Take the validation.csv of its training."
        ) from error


def gained_until(curve: Sequence[tuple[float, float]]) -> float | None:
    """Return the first minute in which the best validation PSNR so far is within 0.05 dB of the best of all.

    Args:
        curve: minutes and PSNR in dB.

    Returns:
        The minute; None for an empty curve.
    """
    best = max((value for _, value in curve), default=0.0)
    return min((minutes for minutes, value in curve if value >= best - GAINED_WITHIN_DB), default=None)
