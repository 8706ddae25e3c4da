"""Train a bundle from beginning to end, as `monai-sr train` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.training.training import open_training


def train(
    bundle: str | Bundle,
    data: Path,
    out: Path,
    *,
    iterations: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a bundle once and keep the weights that were best on the validation images.

    Args:
        bundle, data: see `open_training`.
        out: folder for the weights and records.
        iterations, epochs, minutes: length of the whole training, of a resumed one too; one of them.
        progress: show a bar. Default True.
        options: others of `open_training`, as `stage`, `start`, `resume` and `seed`, and keys of the workflow.

    Returns:
        The best weights.

    Raises:
        BundleError, InputError, OutputError: see `open_training`.
    """
    training = open_training(
        bundle, data, out, iterations=iterations, epochs=epochs, minutes=minutes, progress=progress, **options
    )
    training.run()
    return training.save()
