"""Settings that a site gives its own trainer, as the folder of its images; none comes from a job or leaves a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml
from monai_sr_bundle.errors import InputError
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

SETTINGS_FILE = "monai_sr_site.yaml"
"""The file in the `local` folder of a site's start-up kit."""
SIMULATED_SETTINGS = "monai_sr_sites"
"""The folder there, of a simulation, with a file for each site."""


@dataclass(frozen=True)
class SiteSettings:
    """Settings of a site.

    Attributes:
        data: folder with a manifest, or of such folders.
        work: folder for checkpoints.
        operator: degradation of the training images, where it is not the bundle's.
        reduce: factor that stored images are reduced by first, where it is not the bundle's.
        ledger: file of the site's privacy ledger; without it, nothing that needs a privacy budget runs here.
        epsilon, delta: the budget.
        backbone: weights of the recognition network behind a feature loss, which stages as "gan" need.
    """

    data: Path
    work: Path
    operator: str | None = None
    reduce: int | None = None
    ledger: Path | None = None
    epsilon: float | None = None
    delta: float | None = None
    backbone: Path | None = None


def site_settings_file(fl_ctx: FLContext) -> Path:
    """Return the file with the settings of the site that a job runs at."""
    local = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_site_config_dir())
    simulated = local / SIMULATED_SETTINGS / f"{fl_ctx.get_identity_name()}.yaml"
    return simulated if simulated.is_file() else local / SETTINGS_FILE


def read_site_settings(path: Path) -> SiteSettings:
    """Read a site's settings.

    Raises:
        InputError: no such file, or not such keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            f"{path.name}: cannot be read ({type(error).__name__}). Run `monai-sr federated join` at this site first."
        ) from error
    names = [field.name for field in fields(SiteSettings)]
    if not isinstance(content, Mapping) or not {"data", "work"} <= set(content) <= set(names):
        raise InputError(f"{path.name}: expected the keys data and work, and perhaps {', '.join(names[2:])}.")
    paths = {key: Path(content[key]) for key in ("data", "work", "ledger", "backbone") if key in content}
    return SiteSettings(**{**content, **paths})


def write_site_settings(settings: SiteSettings, path: Path) -> None:
    """Write a site's settings where its trainer looks for them.

    Relative paths are written as absolute ones: the trainer runs in a folder of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        key: str(value.absolute()) if isinstance(value, Path) else value for key, value in vars(settings).items()
    }
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}), "utf-8")
