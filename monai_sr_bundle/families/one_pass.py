"""One-pass networks: from image to image in one evaluation, as SRCNN, EDSR, ESRGAN or RUNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import InPlaneFamily


class OnePass(InPlaneFamily):
    """A network that enlarges in one pass."""

    name: ClassVar[str] = "one_pass"

    def __init__(self, facts: Mapping[str, Any], bundle: str = "this bundle") -> None:
        super().__init__(facts, bundle)
        if facts.get("diffusion"):
            raise BundleError("there is a `diffusion` block, which family one_pass has not. Take it out.")
