"""Images of several sites in one training, each treated as at its own site."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.transforms.transform import Transform


class BySited(Transform):
    """Treat an image as its site does.

    Args:
        transforms: transform of each site, by the name of the site, which is that of the folder two above the image's
            file.
    """

    def __init__(self, transforms: Mapping[str, Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self.transforms[Path(data["path"]).parents[1].name](data)
