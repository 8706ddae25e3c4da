"""The weights file that a workflow loads: the released one, checked."""

from __future__ import annotations

from pathlib import Path

from monai_sr_bundle.bundles import open_bundle


def released_weights(bundle_root: str) -> str:
    """Path of a bundle's `model.pt`, after checking its hash; empty for a method without weights.

    Raises:
        BundleError: no bundle there, or its weights are missing or damaged.
    """
    bundle = open_bundle(Path(bundle_root))
    return "" if bundle.parameters == 0 else str(bundle.weights("model.pt")[0])
