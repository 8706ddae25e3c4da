"""The table of a simulation: federated training compared with the alternatives, at each site and at the others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle import __version__
from monai_sr_bundle.federated.measurement import BICUBIC, SiteMeasures
from monai_sr_bundle.federated.study import Study
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.metrics.mean import Mean

COLUMNS = {
    "bicubic": "bicubic",
    "local": "local",
    "local_elsewhere": "others' local",
    "global": "global",
    "personalised": "personalised",
    "personalised_elsewhere": "others' pers.",
    "pooled": "pooled",
}
"""Methods of the table: `elsewhere` are those of the other sites, averaged for each image."""
_PAIRS = (
    ("global", "pooled", "federated over pooled", "-0.3 dB or more"),
    ("global", "local_elsewhere", "federated over the other sites' local models", "+0.3 dB or more"),
    ("personalised", "local", "personalised over local, at its own site", "0 dB or more"),
)
"""Comparisons, in words, with what they are expected to be."""


def image_figures(measures: SiteMeasures, site: str, sites: Sequence[str]) -> dict[str, list[float]]:
    """Return the PSNR of each test image of a site, by column of the table.

    Args:
        measures: figures of all models on the site's images.
        site: name of the site.
        sites: names of all sites.
    """
    others = [other for other in sites if other != site]

    def elsewhere(kind: str) -> list[float]:
        return list(np.mean([measures.psnr[f"{kind}_{other}"] for other in others], axis=0))

    return {
        "bicubic": measures.psnr[BICUBIC],
        "local": measures.psnr[f"local_{site}"],
        "local_elsewhere": elsewhere("local"),
        "global": measures.psnr["global"],
        "personalised": measures.psnr[f"personalised_{site}"],
        "personalised_elsewhere": elsewhere("personalised"),
        "pooled": measures.psnr["pooled"],
    }


def describe(study: Study, measures: Mapping[str, SiteMeasures], *, quick: bool) -> str:
    """Return the table for the terminal.

    Args:
        study: the study.
        measures: figures by name of the site.
        quick: say that nothing follows from them.
    """
    sites = [site.name for site in study.sites]
    figures = {site: image_figures(measures[site], site, sites) for site in sites}
    width = max(13, *map(len, COLUMNS.values())) + 2
    task = study.task
    assert task.iterations is not None
    lines = [
        study.title,
        f"{task.bundle}, {task.algorithm}: {task.rounds} rounds of {task.iterations} iterations a site; every model "
        f"{task.rounds * task.iterations} iterations from the same weights.",
        "PSNR (dB) on the test images of each site, degraded as there:",
        f"{'site':22}" + "".join(f"{title:>{width}}" for title in COLUMNS.values()),
    ]
    for site in sites:
        row = "".join(f"{np.mean(values):{width}.2f}" for values in figures[site].values())
        lines.append(f"{f'{site} ({len(measures[site].patients)})':22}{row}")
    means = {column: float(np.mean([np.mean(figures[site][column]) for site in sites])) for column in COLUMNS}
    lines.append(f"{'mean over sites':22}" + "".join(f"{value:{width}.2f}" for value in means.values()))
    lines.append("Gain over bicubic (dB), 95 % interval over patients:")
    for site in sites:
        gains = _gains(figures[site], measures[site].patients)
        lines.append(
            f"{site:22}"
            + ", ".join(
                f"{COLUMNS[column]} {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"
                for column, gain in gains.items()
            )
        )
    for first, second, words, expected in _PAIRS:
        difference = _over_sites(measures, figures, first, second)
        interval = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        lines.append(f"{words}: {difference.mean:+.2f} dB {interval}, expected {expected}")
    if quick:
        lines.append(
            "This was --quick: it shows that all parts run. With so few iterations and images nothing follows from it."
        )
    return "\n".join(lines)


def write_comparison(
    study: Study, measures: Mapping[str, SiteMeasures], rounds: Sequence[Any], path: Path, *, quick: bool
) -> None:
    """Write all figures of the table for programs, as docs/results.py.

    Args:
        study: the study.
        measures: figures by name of the site.
        rounds: record of the rounds.
        path: the JSON file.
        quick: whether nothing follows from them.
    """
    bundle = study.task.require_bundle()
    sites = [site.name for site in study.sites]
    figures = {site: image_figures(measures[site], site, sites) for site in sites}
    content = {
        "study": study.name,
        "title": study.title,
        "quick": quick,
        "version": __version__,
        "task": dataclasses.asdict(study.task),
        "start": study.start,
        "columns": COLUMNS,
        "personal_rounds": study.personal_rounds,
        "sites": {
            site: {
                "operator": next(each.operator for each in study.sites if each.name == site) or bundle.operator,
                "images": len(measures[site].patients),
                "patients": len(set(measures[site].patients)),
                "psnr": {column: float(np.mean(values)) for column, values in figures[site].items()},
                "gain": {
                    column: dataclasses.asdict(gain)
                    for column, gain in _gains(figures[site], measures[site].patients).items()
                },
            }
            for site in sites
        },
        "differences": {
            words: dataclasses.asdict(_over_sites(measures, figures, first, second))
            for first, second, words, _ in _PAIRS
        },
        "rounds": list(rounds),
    }
    write_file(path, f"{json.dumps(content, indent=2)}\n".encode())


def _gains(figures: Mapping[str, Sequence[float]], patients: Sequence[str]) -> dict[str, Mean]:
    return {
        column: Mean.of(np.subtract(values, figures["bicubic"]).tolist(), patients)
        for column, values in figures.items()
        if column != "bicubic"
    }


def _over_sites(
    measures: Mapping[str, SiteMeasures],
    figures: Mapping[str, Mapping[str, Sequence[float]]],
    first: str,
    second: str,
) -> Mean:
    """Return the mean difference over the images of all sites, with its interval over their patients."""
    values: list[float] = []
    patients: list[str] = []
    for site, of_site in figures.items():
        values += np.subtract(of_site[first], of_site[second]).tolist()
        patients += [f"{site} {patient}" for patient in measures[site].patients]
    return Mean.of(values, patients)
