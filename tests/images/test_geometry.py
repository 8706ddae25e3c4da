"""Rectangles of pixels."""

from __future__ import annotations

from monai_sr_bundle.images.geometry import Region


def test_a_region_is_the_same_rectangle_in_smaller_pixels():
    assert Region(top=1, bottom=3, left=5, right=9).scaled(4) == Region(top=4, bottom=12, left=20, right=36)
