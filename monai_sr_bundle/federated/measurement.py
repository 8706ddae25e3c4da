"""Models of a study on the images of a site: PSNR of each, beside that of bicubic interpolation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.site_training import open_site_training, site_items
from monai_sr_bundle.federated.study import Study, read_study
from monai_sr_bundle.metrics.box_fidelity import box_psnr
from monai_sr_bundle.metrics.fidelity import PSNR
from monai_sr_bundle.metrics.mean import Mean
from monai_sr_bundle.training.weights import read_weights
from monai_sr_bundle.transforms.augmentation import BOXES
from torch.nn.functional import interpolate

BICUBIC = "bicubic"


@dataclass
class SiteMeasures:
    """Figures of several models on the images of one site.

    Attributes:
        patients: patient of each image.
        psnr: PSNR in dB of each image, by model; `bicubic` is one of them.
        box_psnr: the same inside boxes; not-a-number for an image without any.
    """

    patients: list[str] = field(default_factory=list)
    psnr: dict[str, list[float]] = field(default_factory=dict)
    box_psnr: dict[str, list[float]] = field(default_factory=dict)

    def gain(self, model: str) -> Mean:
        """Return the mean difference in PSNR of two models, with its interval over patients."""
        differences = [a - b for a, b in zip(self.psnr[model], self.psnr[BICUBIC], strict=True)]
        return Mean.of(differences, self.patients)


def measure_models(
    study: Study,
    settings: SiteSettings,
    models: Mapping[str, Mapping[str, torch.Tensor]],
    split: str = "test",
) -> SiteMeasures:
    """Measure models on the images of one site, which are degraded as there.

    Args:
        study: the study that the models are of.
        settings: folder of the site's images, and how they lose their resolution.
        models: state dicts, by names of the models.
        split: "train", "val" or "test". Default "test".

    Raises:
        InputError, BundleError: see `open_training`.
    """
    with TemporaryDirectory() as output:
        bundle = study.task.require_bundle()
        # One training image: this one is never run.
        training = open_site_training(study.task, bundle, settings, Path(output), seed=study.task.seed, limit=1)
        facts, items = training.bundle.facts, site_items(training, settings, split)
        levels = int(facts["levels"])
        reduce = int(settings.reduce or facts.get("reduce", 1))
        psnr = PSNR(levels)
        measures = SiteMeasures(patients=[str(item["patient"]) for item in items])
        for number, (name, state) in enumerate(models.items()):
            training.load_weights(state)
            for item, output_ in zip(items, training.enlarge(items), strict=True):
                label = output_["label"][None].float()
                images = {name: output_["pred"][None].float()}
                if number == 0:
                    images[BICUBIC] = _bicubic(output_["image"].float(), label)
                for method, image in images.items():
                    measures.psnr.setdefault(method, []).append(float(torch.as_tensor(psnr(image, label))))
                    inside = box_psnr(image, label, item[BOXES] / reduce, levels)
                    measures.box_psnr.setdefault(method, []).append(inside)
    return measures


def _bicubic(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the middle slice of an input, enlarged to the size of its original."""
    middle = image[image.shape[0] // 2][None, None]
    return interpolate(middle, size=label.shape[-2:], mode="bicubic", align_corners=False)


def evaluate(study: str, model: Path, data: Path, *, split: str = "test", operator: str | None = None) -> str:
    """Measure a global model and the weights that the bundle is shipped with on the images of one site.

    Args:
        study: name or file of the study.
        model: `FL_global_model.pt` of its job.
        data: folder of the site's images.
        split: see `measure_models`.
        operator: degradation of the images. Default: the bundle's.

    Returns:
        A table for the terminal.

    Raises:
        InputError, BundleError: see `read_study` and `measure_models`.
    """
    from monai_sr_bundle.federated.start_weights import start_state

    read = read_study(study)
    bundle = read.task.require_bundle()
    models = {"global": read_weights(model), "before": start_state(bundle, read.start, read.task.seed)}
    measures = measure_models(read, SiteSettings(data, data, operator), models, split)
    lines = [
        f"{read.name} | {split} split: {len(measures.patients)} images of {len(set(measures.patients))} patients | "
        f"{operator or bundle.operator}",
        f"{'':10}{'PSNR (dB)':>10}{'in boxes':>10}{'gain':>8}  95 % interval over patients",
    ]
    for name in (BICUBIC, "before", "global"):
        mean = Mean.of(measures.psnr[name]).mean
        boxed = [value for value in measures.box_psnr[name] if math.isfinite(value)]
        in_boxes = f"{sum(boxed) / len(boxed):.2f}" if boxed else "no box"
        gain = measures.gain(name)
        interval = "" if name == BICUBIC else f"{gain.mean:+8.2f}  [{gain.low:+.2f}, {gain.high:+.2f}]"
        lines.append(f"{name:10}{mean:10.2f}{in_boxes:>10}{interval}")
    return "\n".join(lines)
