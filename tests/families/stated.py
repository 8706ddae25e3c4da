"""Families as a model.yaml states them, for tests that need no bundle."""

from __future__ import annotations

from typing import Any

from monai_sr_bundle.families.family import ModelFamily, open_family

FACTS: dict[str, Any] = {"scale": 4, "halo": 8, "memory_per_pixel": 1000, "operator": "bicubic_antialias_x4"}
TEXTURE = {"noise": 0.5, "residual_std": 0.1, "steps": 2, "samples": 1, "texture": 0.0}
"""The `diffusion` block of a flow."""
DRAWN = {"training_steps": 100, "sampler": "ddim", "steps": 4, "samples": 1}
"""That of a diffusion model."""
BLOCKS: dict[str, dict[str, Any]] = {"flow": TEXTURE, "diffusion": DRAWN}


def stated_family(name: str, **facts: Any) -> ModelFamily:
    """Return a family by the keys that it needs.

    Args:
        name: value of the key `family`.
        facts: further keys of model.yaml, or other values.
    """
    along = {"operator": "slab_area_x4", "modality": "CT", "slices": 5} if name == "through_plane" else {}
    sampling = {"diffusion": BLOCKS[name]} if name in BLOCKS else {}
    return open_family({"family": name, **FACTS, **along, **sampling, **facts})
