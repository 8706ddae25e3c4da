"""Find a bundle of this project by its name, or any other by its folder. Packed bundles do not carry this."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from monai_sr_bundle.bundles import Bundle, open_bundle
from monai_sr_bundle.errors import BundleError


def configs_dir() -> Path:
    """The folder of the shipped bundles: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def all_bundles(root: Path | None = None) -> Iterator[Bundle]:
    """The bundles under `root` (the shipped ones by default), by name."""
    for text in sorted((root or configs_dir()).glob("*/model.yaml")):
        yield open_bundle(text.parent)


def all_variants(bundle: Bundle) -> Iterator[Bundle]:
    """The variants of a bundle, by name."""
    for text in sorted(bundle.folder.glob("variants/*/model.yaml")):
        yield open_bundle(text.parent)


def find_bundle(name: str) -> Bundle:
    """A shipped bundle by name, as `NAME` or `NAME:VARIANT`, or any bundle by the path of its folder.

    Raises:
        BundleError: no such bundle or variant; the message lists those there are.
    """
    base, _, variant = name.partition(":")
    # pathlib's own questions raise an error for a name that is too long for the system; these say no.
    if os.path.isfile(configs_dir() / base / "model.yaml"):
        folder = configs_dir() / base
        if not variant:
            return open_bundle(folder)
        if os.path.isfile(folder / "variants" / variant / "model.yaml"):
            return open_bundle(folder / "variants" / variant)
        there = ", ".join(other.name for other in all_variants(open_bundle(folder)))
        raise BundleError(
            f"bundle {base} has no variant {variant!r}. "
            f"{f'Available: {there}' if there else 'Variants are in the repository alone, not in an installed wheel'}."
        )
    if os.path.isdir(name):
        return open_bundle(Path(name))
    names = ", ".join(bundle.name for bundle in all_bundles())
    raise BundleError(f"bundle {name!r} is unknown. Available: {names}; or give the path of a bundle's folder.")


def is_default(bundle: Bundle) -> bool:
    """Return whether the engine takes a bundle for its modality when none is named."""
    return bool(bundle.facts.get("default", False)) and not bundle.is_variant


def default_bundle(modality: str) -> Bundle:
    """The bundle to use for a modality when the user names none.

    Raises:
        BundleError: there is none for this modality.
    """
    defaults = [bundle for bundle in all_bundles() if is_default(bundle) and bundle.modality == modality]
    if len(defaults) != 1:
        raise BundleError(f"{len(defaults)} default bundles for {modality}, expected one. Name one with --bundle.")
    return defaults[0]
