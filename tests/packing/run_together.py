"""Every packed bundle of a folder in this one process, without the package installed; a table of what each can do.

Run by test_together.py: python -S run_together.py SITE_PACKAGES PACKED IMAGES DATA TABLE. Without -S, .pth files of an
editable installation would bring the package in.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[1])
warnings.simplefilter("ignore")

import torch  # noqa: E402
from monai.bundle import ConfigWorkflow, ckpt_export, load  # noqa: E402
from monai.bundle.scripts import create_workflow  # noqa: E402

PACKED, IMAGES, DATA, TABLE = map(Path, sys.argv[2:])
TINY = {
    "iterations": 1, "batch_size": 2, "patch_size": 8, "validations": 1, "val_limit": 1, "statistics_from": 1,
    "val_steps": 1, "limit": 2, "progress": False, "films": [["cxr_nih", 1, 1.0]],
}  # fmt: skip
"""One step of the optimizer and one image to validate on; of these, the keys that a workflow has."""


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def run(folder: Path, name: str, **changes: Any) -> ConfigWorkflow:
    """Run a workflow with those of the changes whose key it has; `bundle_root` is found by the bundle itself."""
    config = read(folder, name)
    changes = {key: value for key, value in changes.items() if key in config}
    if (config.get("diffusion") or {}).get("steps"):
        changes["diffusion#steps"] = 2
    kind = "train" if name == "train" else "infer"
    workflow = create_workflow(
        config_file=str(folder / "configs" / f"{name}.json"), workflow_type=kind, logging_file=False, **changes
    )
    workflow.run()
    workflow.finalize()
    return workflow


def load_network(folder: Path, out: Path) -> None:
    if not (folder / "models" / "model.pt").is_file():
        raise LookupError
    network = load(folder.name, bundle_dir=str(folder.parent), workflow_type="inference", device="cpu")
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name].to(value.dtype)), name


def enlarge(folder: Path, out: Path) -> None:
    config = read(folder, "inference")
    image = next(IMAGES.glob("*.nii.gz" if config["modality"] == "CT" else "*.png"))
    run(folder, "inference", dataset_dir=str(image), output_dir=str(out))
    (result,) = out.iterdir()
    assert result.stat().st_size > image.stat().st_size


def evaluate(folder: Path, out: Path) -> None:
    if not (folder / "configs" / "evaluate.json").is_file():
        raise LookupError
    workflow = run(folder, "evaluate", dataset_dir=str(DATA), output_dir=str(out), limit=1)
    psnr = workflow.parser.get_parsed_content("validate#evaluator").state.metrics["psnr"]
    assert 10 < psnr < 100, psnr


def train(folder: Path, out: Path) -> None:
    if not (folder / "configs" / "train.json").is_file():
        raise LookupError
    run(folder, "train", dataset_dir=str(DATA), output_dir=str(out), **TINY)
    assert (out / "model.pt").is_file()


class Traced(torch.nn.Module):
    """One method of a network, for `torch.jit.trace`."""

    def __init__(self, network: torch.nn.Module, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return getattr(self.network, self.method)(*inputs)


def export(folder: Path, out: Path) -> None:
    """Write TorchScript of the network; a denoiser, of which sampling takes many steps, is traced."""
    if not (folder / "models" / "model.pt").is_file():
        raise LookupError
    network = load(folder.name, bundle_dir=str(folder.parent), workflow_type="inference", device="cpu").eval()
    from monai_sr_bundle.bundles import open_bundle  # that of the bundle which was loaded first

    denoiser = next((part for part in open_bundle(folder).family.parts if part.name == "denoiser"), None)
    if denoiser is None:
        ckpt_export(
            net_id="network_def", filepath=str(out / "model.ts"), ckpt_file=str(folder / "models" / "model.pt"),
            meta_file=str(folder / "configs" / "metadata.json"), config_file=str(folder / "configs" / "inference.json"),
        )  # fmt: skip
    else:
        side = -(-8 // denoiser.multiple(network)) * denoiser.multiple(network)
        shapes = [(1,) if channels is None else (1, channels, side, side) for channels in denoiser.channels(network)]
        inputs = tuple(map(torch.rand, shapes))
        torch.jit.trace(Traced(network, denoiser.method), inputs, check_trace=False).save(out / "model.ts")
    torch.jit.load(out / "model.ts")


CHECKS: dict[str, Callable[[Path, Path], None]] = {
    "load": load_network, "inference": enlarge, "evaluate": evaluate, "train": train, "export": export,
}  # fmt: skip


def result_of(check: Callable[[Path, Path], None], folder: Path) -> str:
    """Run a check: "ok", "-" where the bundle has no such thing, or the innermost error."""
    with tempfile.TemporaryDirectory() as out:
        try:
            check(folder, Path(out))
        except LookupError as error:
            if type(error) is LookupError:
                return "-"
            return f"FAIL {error!r}"
        except Exception as error:
            cause: BaseException = error
            while (inner := cause.__cause__ or cause.__context__) is not None:
                cause = inner
            return f"FAIL {cause!r}"
    return "ok"


def main() -> None:
    bundles = sorted(path for path in PACKED.iterdir() if path.is_dir())
    results: dict[str, dict[str, str]] = {bundle.name: {} for bundle in bundles}
    for number, (name, check) in enumerate(CHECKS.items()):
        for bundle in bundles if number % 2 else reversed(bundles):  # any order
            results[bundle.name][name] = result_of(check, bundle)
    width = max(map(len, results))
    lines = [f"{'':{width}}  " + "  ".join(f"{name:9}" for name in CHECKS).rstrip()]
    for name, row in results.items():
        lines.append(f"{name:{width}}  " + "  ".join(f"{value:9}" for value in row.values()).rstrip())
    TABLE.write_text("\n".join(lines) + "\n")


main()
