"""MONAI's workflows of a bundle, run in this process as `python -m monai.bundle run` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai_sr_bundle.shipped_bundles import configs_dir


def open_workflow(bundle_dir: Path | str, *names: str, **arguments: Any) -> ConfigWorkflow:
    """Read and check a workflow of a bundle.

    Args:
        bundle_dir: folder of the bundle, in the checkout or packed.
        names: the workflow, as "inference", and its overlays.
        arguments: keys of the config that are replaced.
    """
    folder = Path(bundle_dir)
    config_files = [folder / "configs" / f"{name}.yaml" for name in names]
    if not config_files[0].is_file():
        config_files = [folder / "model.yaml", *(configs_dir() / "workflows" / f"{name}.yaml" for name in names)]
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
    workflow = ConfigWorkflow([*map(str, config_files)], logging_file=False, bundle_root=str(folder), **plain)
    workflow.initialize()
    return workflow


def run_workflow(bundle_dir: Path | str, *names: str, **arguments: Any) -> ConfigWorkflow:
    """Run a workflow to its end; the arguments are those of `open_workflow`."""
    workflow = open_workflow(bundle_dir, *names, **arguments)
    workflow.run()
    workflow.finalize()
    return workflow
