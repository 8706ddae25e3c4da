"""The sites of a simulation: which images each has, and how they lose their resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError


@dataclass(frozen=True)
class SimulatedSite:
    """A site of a simulation.

    Attributes:
        name: name of the site.
        operator: name of the `Degradation` that its images undergo. Default: the bundle's.
        reduce: factor that its stored images are reduced by first. Default: the bundle's.
        folder: image set of the data that its images come from. Default: all, of which each site gets its share.
        view: only radiographs of this view, as "PA". Default: all.
        files: pattern of the file names, as "nih-*". Default: all.
    """

    name: str
    operator: str | None = None
    reduce: int | None = None
    folder: str | None = None
    view: str | None = None
    files: str = "*"


def parse_sites(content: object) -> tuple[SimulatedSite, ...]:
    """Return the sites of a study's text.

    Raises:
        InputError: a key is missing, unknown or of another type; no such operator; a name stands there twice.
    """
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise InputError(f"sites is {content!r}, expected a list.")
    sites = tuple(_parse_site(number, entry) for number, entry in enumerate(content, start=1))
    names = [site.name for site in sites]
    if len(set(names)) < len(names):
        raise InputError(f"sites are named {', '.join(names)}, expected each name once.")
    return sites


def _parse_site(number: int, entry: Any) -> SimulatedSite:
    field_types = {field.name: str(field.type) for field in fields(SimulatedSite)}
    if not isinstance(entry, Mapping) or "name" not in entry or set(entry) - set(field_types):
        raise InputError(f"site {number} is {entry!r}, expected a name and perhaps {', '.join(list(field_types)[1:])}.")
    for key, value in entry.items():
        kind = int if field_types[key].startswith("int") else str
        if type(value) is not kind:
            raise InputError(f"site {number}: {key} is {value!r}, expected {kind.__name__}.")
    site = SimulatedSite(**entry)
    if not site.name.replace("_", "").replace("-", "").isalnum():
        raise InputError(f"site {number}: name is {site.name!r}, expected letters, digits, _ and -.")
    if site.reduce is not None and not 1 <= site.reduce <= 16:
        raise InputError(f"site {number}: reduce is {site.reduce}, expected 1 to 16.")
    if site.operator is not None:
        try:
            Degradation.parse(site.operator)
        except ValueError as error:
            raise InputError(f"site {number}: {error}") from error
    return site
