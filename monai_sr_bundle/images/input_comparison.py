"""Comparison of an input's measures with the ranges of the inputs that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping

from monai_sr_bundle.images.input_checks import (
    LEAST_SIDE,
    MAY_NOT_HOLD,
    NAMES,
    InputComparison,
)


def resembles_training(comparison: Mapping[str, InputComparison]) -> bool | None:
    """Return whether an input is like the training inputs; None if that is unknown.

    It is unknown for a bundle that states no ranges, and where nothing could be measured.
    """
    if any(measure.side for measure in comparison.values()):
        return False
    return True if comparison and all(measure.value is not None for measure in comparison.values()) else None


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
    sentences = []
    for name, measure in comparison.items():
        words, unit, below, above = NAMES[name]
        if measure.side:
            sentences.append(
                f"The input is {below if measure.side < 0 else above} than those the model was trained on ({words} "
                f"{measure.value:.3g} {unit}, known {measure.low:.3g} to {measure.high:.3g}): {MAY_NOT_HOLD}."
            )
    return sentences
