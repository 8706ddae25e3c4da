"""The images of a simulation's sites: one data set, divided by patient."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.datasets.make_manifest import write_boxes, write_manifest
from monai_sr_bundle.datasets.manifest import Record, read_boxes, read_manifest
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.simulated_site import SimulatedSite
from monai_sr_bundle.federated.site_settings import SiteSettings

_KINDS_OF_LOSS = ("{0}", "area_x{1}+noise3", "{0}+blur1.2", "bilinear_antialias_x{1}+noise1.5")


def usual_sites(bundle: Bundle, count: int) -> tuple[SimulatedSite, ...]:
    """Return sites that share the patients of a data set and differ in how their images lose their resolution.

    Args:
        bundle: the bundle that they train; along the slices there is one kind of loss alone.
        count: number of sites, at least 2.

    Raises:
        InputError: fewer than 2.
    """
    if count < 2:
        raise InputError(f"--sites {count}: expected at least 2 sites.")
    losses = _KINDS_OF_LOSS[:1] if bundle.degradation.slab else _KINDS_OF_LOSS
    return tuple(
        SimulatedSite(f"site-{number + 1}", losses[number % len(losses)].format(bundle.operator, bundle.scale))
        for number in range(count)
    )


def write_site_data(
    sites: Sequence[SimulatedSite],
    bundle: Bundle,
    data: Path,
    out: Path,
    *,
    limit: int | None = None,
    before_writing: Callable[[], None] = lambda: None,
) -> dict[str, SiteSettings]:
    """Write a folder with a manifest for each site, and return the settings of each by its name.

    The images are links to those of the data set. Nothing is written before all of the data are checked.

    A patient belongs to one site. Where several sites could have a patient, its name decides. If there are fewer
    validation or test patients than sites, several sites have the same ones.

    Args:
        sites: the sites.
        bundle: bundle that they train; its modality decides which images.
        data: folder with a manifest, or of such folders.
        out: folder of the simulation; the sites get theirs in its `sites`, and checkpoints will be in its `work`.
        limit: most images of a site in each split. Default: all.
        before_writing: called once the data are checked. Default: nothing.

    Raises:
        InputError: a site has no training, validation or test image; see `read_manifest`.
        OutputError: `out` holds other sites.
    """
    for site in sites:
        if site.operator and Degradation.parse(site.operator).scale != bundle.scale:
            raise InputError(
                f"site {site.name}: operator is {site.operator}, but {bundle.name} enlarges by {bundle.scale}; "
                "expected the same factor."
            )
    kind = "ct" if bundle.modality == "CT" else "cxr"
    folders = {site.folder for site in sites}
    sets = None if None in folders else sorted(folder for folder in folders if folder)
    records = read_manifest(data, kind=kind, sets=sets)  # type: ignore[arg-type]  # one of the two
    boxes = read_boxes(data, sets=sets)
    of_sites: dict[str, list[Record]] = {site.name: [] for site in sites}
    for split in ("train", "val", "test"):
        of_split = [record for record in records if record.split == split]
        for name, chosen in _divide(of_split, sites, may_share=split != "train").items():
            of_sites[name] += chosen[:limit]
    needed = ("train", "test") if bundle.facts.get("validation_share") else ("train", "val", "test")
    for site in sites:
        of_site = of_sites[site.name]
        missing = [split for split in needed if not any(record.split == split for record in of_site)]
        if missing:
            raise InputError(
                f"site {site.name} has no {' and no '.join(missing)} image. Take fewer sites, or other images for it."
            )
    before_writing()
    settings = {
        site.name: SiteSettings(out / "sites" / site.name, out / "work" / site.name, site.operator, site.reduce)
        for site in sites
    }
    for name, of_site in of_sites.items():
        folder = settings[name].data
        linked = {record: _link(record, folder) for record in of_site}
        write_manifest(linked.values(), folder)
        with_boxes = {linked[record].file: boxes[record.file] for record in of_site if record.file in boxes}
        if with_boxes:
            write_boxes(with_boxes, folder)
    return settings


def _divide(records: Sequence[Record], sites: Sequence[SimulatedSite], *, may_share: bool) -> dict[str, list[Record]]:
    of_patient: dict[str, list[Record]] = {}
    for record in records:
        of_patient.setdefault(record.patient_id, []).append(record)
    divided: dict[str, list[Record]] = {site.name: [] for site in sites}
    # Dealt like cards among the sites that could have a patient, in an order that the patients' names decide.
    counts: dict[tuple[str, ...], int] = {}
    for patient in sorted(of_patient, key=lambda name: hashlib.sha256(name.encode()).digest()):
        possible = [site for site in sites if any(_belongs(record, site) for record in of_patient[patient])]
        if possible:
            names = tuple(site.name for site in possible)
            site = possible[counts.get(names, 0) % len(possible)]
            counts[names] = counts.get(names, 0) + 1
            divided[site.name] += [record for record in of_patient[patient] if _belongs(record, site)]
    if may_share:
        for site in sites:
            divided[site.name] = divided[site.name] or [record for record in records if _belongs(record, site)]
    return divided


def _belongs(record: Record, site: SimulatedSite) -> bool:
    in_folder = site.folder is None or site.folder in record.file.parts
    return in_folder and site.view in (None, record.view) and fnmatch(record.file.name, site.files)


def _link(record: Record, folder: Path) -> Record:
    """Return the record of a link in a site's folder to an image; a volume's name may stand in several sets."""
    name = hashlib.sha256(str(record.file).encode()).hexdigest()[:6] + "_" + record.file.name
    link = folder / "images" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        os.symlink(record.file, link)
    return replace(record, file=link)
