"""Augmentations of the published methods, by name. The papers name the steps; the ranges are ours."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from monai.transforms.compose import Compose, OneOf
from monai.transforms.transform import Transform
from monai.transforms.utility.dictionary import Identityd

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms.cutout import RandCutoutd
from monai_sr_bundle.transforms.geometric import RandGeometryd


def _flip_turn_crop_cutout(key: Hashable) -> list[Transform]:
    changed = Compose([RandGeometryd(key, flip=0.5, turns=True, window=(0.7, 1.0)), RandCutoutd(key)])
    # One random draw decides about both, so that 30 % of the images are unchanged.
    return [OneOf([changed, Identityd(key)], weights=[0.7, 0.3])]


_SETS: dict[str, Callable[[Hashable], list[Transform]]] = {
    "none": lambda key: [],
    "flip_turn_crop_cutout": _flip_turn_crop_cutout,
    "resize_crop_zoom_rotate": lambda key: [
        RandGeometryd(key, window=(0.8, 1.0), zoom=(0.9, 1.1), degrees=(0.0, 10.0))
    ],
    "rotated_copy": lambda key: [RandGeometryd(key, prob=0.5, degrees=(20.0, 20.0))],
}
NAMES = tuple(_SETS)


def augmentation(name: str, key: Hashable = "label") -> list[Transform]:
    """Return the random transforms of a named augmentation, for the target before the input is made from it.

    - "none": no transforms.
    - "flip_turn_crop_cutout": flips, right-angle turns, a random window enlarged to the image's size, and cutout;
      together on 70 % of the images.
    - "resize_crop_zoom_rotate": a random window enlarged to the image's size, zoom and a rotation of up to 10 degrees.
    - "rotated_copy": half of the images are rotated by 20 degrees, left or right.

    Args:
        name: one of `NAMES`.
        key: key of the target; `boxes_xyxy` and `findings` move with it.

    Raises:
        InputError: an unknown name.
    """
    if name not in _SETS:
        raise InputError(
            f"augmentation is {name!r}, expected one of {', '.join(NAMES)}. Correct it in the bundle's model.yaml "
            "or in the argument."
        )
    return _SETS[name](key)
