"""Compare an input with those that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping

from monai_sr_bundle.images.input_checks import InputComparison


def resembles_training(comparison: Mapping[str, InputComparison]) -> bool | None:
    """Return whether an input is like the training inputs; None if that is unknown.

    It is unknown for a bundle that states no ranges, and where nothing could be measured.
    """
    if any(measure.side for measure in comparison.values()):
        return False
    return True if comparison and all(measure.value is not None for measure in comparison.values()) else None
