"""The part of a packed bundle's card that follows from its files: its commands, picture and training curve.

The card in a bundle's source folder holds all that cannot be derived from files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from monai_sr_bundle.backends.onnx_files import onnx_files
from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.degradation import along_slices
from monai_sr_bundle.images.dicom_pixels import PLUGINS
from monai_sr_bundle.training.stages import training_stages

PICTURE = "example.jpg"
"""Picture in a bundle's source folder: original, input, bicubic interpolation and result of a test image in one row."""
CURVE = "training_curve.csv"
HOW_TO_RUN = "## How to run\n"
_WITH_THE_PACKAGE = (
    "These commands need the package monai-sr-bundle. With MONAI and this bundle alone: "
    "[Bundle commands](#bundle-commands).\n\n"
)
_CREDITS = {
    "CXR": "D. Kermany, K. Zhang, M. Goldbaum, Mendeley Data 2018, doi:10.17632/rscbjbr9sj, CC BY 4.0",
    "CT": "S. G. Armato III et al., LIDC-IDRI, TCIA 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0",
}


_OWN_IMAGES = {
    "train_films": " --films \"[['NAME',1,1.0]]\" --validation_films \"[['NAME',1]]\"",
    "train_scans": " --scans \"[['NAME',1,1.0]]\" --validation_scans \"[['NAME',1]]\"",
    "train_slabs": " --sets \"['NAME']\"",
}
"""Options that name a set of one's own, by the text of the stage; others take all sets of the folder."""
_FEDERATED = {"federated", "federated_filters"}
"""Texts that MONAI's `MonaiAlgo` takes, and no command."""


def complete_card(bundle: Bundle, folder: Path) -> None:
    """Add to the card of a packed bundle the commands that its files allow, its picture and its training curve.

    Args:
        bundle: bundle in its source folder.
        folder: the packed bundle, complete but for this.
    """
    docs = folder / "docs"
    copied = [name for name in (PICTURE, CURVE) if (bundle.folder / name).is_file()]
    for name in copied:
        shutil.copyfile(bundle.folder / name, docs / name)
    card = docs / "README.md"
    title, _, content = card.read_text(encoding="utf-8").partition("\n")
    content = content.replace(HOW_TO_RUN, f"{HOW_TO_RUN}{_WITH_THE_PACKAGE}", 1)
    body, heading, end = content.partition("## References\n")
    picture = _picture(bundle) if PICTURE in copied else ""
    commands = _commands(bundle, folder) + _notes(bundle, folder, CURVE in copied)
    text = f"{title}\n{picture}{body.rstrip()}\n\n{commands}\n{heading}{end}"
    card.write_text(f"{text.rstrip()}\n", encoding="utf-8", newline="\n")


def training_overlays(bundle: Bundle) -> list[list[str]]:
    """Return, for each stage of the training, the names of the texts that are laid over train.yaml."""
    return [texts[1:] for texts in training_stages(bundle).values()]


def needs_backbone(configs: Path, overlay: list[str]) -> bool:
    """Return whether texts ask for the weights of a recognition network, which no bundle carries."""
    return any("\nbackbone:" in (configs / f"{name}.yaml").read_text(encoding="utf-8") for name in overlay)


def _picture(bundle: Bundle) -> str:
    return (
        f"\n![A test image: original, input, bicubic interpolation, result of this bundle]({PICTURE})\n\n"
        "A test image: the original, what is left of it, bicubic interpolation, and the result of this bundle. "
        f"{_CREDITS[bundle.modality]}; cropped, reduced and enlarged.\n"
    )


def _commands(bundle: Bundle, folder: Path) -> str:
    """Return the section with the commands of MONAI that the packed bundle's files allow."""
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    has = {path.stem for path in (folder / "configs").glob("*.yaml")}
    scale = f" --scale {bundle.scales[0]}" if len(bundle.scales) > 1 else ""
    seed = " --seed 1" if bundle.family.name == "diffusion" else ""
    enhance = f"--dataset_dir IN --output_dir OUT{scale}{seed}"
    stages = _stages(bundle, folder / "configs")
    definition = "--net_id network_def --meta_file configs/metadata.json --config_file configs/inference.yaml"
    files = "--ckpt_file models/model.pt --filepath models/model.ts"
    tuning = _fine_tuning(bundle, folder / "configs", metadata) if "fine_tune" in has else []
    own_images = "the folder NAME" if "NAME" in "".join(tuning) else "every image set"
    tuned = f"tuned/{len(tuning)}/model.pt" if len(tuning) > 1 else "tuned/model.pt"
    can_be_scripted = bundle.parameters and bundle.family.name != "diffusion"
    first_stage = ["train", *training_overlays(bundle)[0]] if stages else []
    blocks = [
        (
            "Install what it was tested with:",
            [f"pip install {' '.join(_requirements(metadata))}"],
        ),
        (
            "Enlarge a CT (DICOM series or NIfTI, of at least three slices), or every CT of a folder:"
            if along_slices(bundle.operator)
            else "Enlarge an image (DICOM, NIfTI, PNG, JPEG or TIFF), or every image of a folder:",
            [_run(["inference"], enhance)],
        ),
        (
            "The same with generated texture, 0 to 1:",
            [_run(["inference"], f"{enhance} --diffusion#texture 0.5")] if bundle.family.name == "flow" else [],
        ),
        (
            "Measure it on the test images of DIR:",
            [_run(["evaluate"], "--dataset_dir DIR")] if "evaluate" in has else [],
        ),
        (f"Train it{', stage after stage' if len(stages) > 1 else ''}:", stages),
        (
            f"Go on from these weights on images of your own, {own_images} in DIR"
            f"{'; then its texture, which a changed network needs anew' if bundle.family.name == 'flow' else ''}; "
            "at last enlarge with the new weights:",
            [*tuning, _run(["inference"], f"{enhance} --checkpoint {tuned}")] if tuning else [],
        ),
        (
            "On several GPUs of one machine; without a GPU, in several processes"
            f"{'; later stages of the training likewise' if len(stages) > 1 else ''}:",
            [
                _run([*texts, f"multi_gpu_{texts[0]}"], arguments, gpus=2)
                for texts, arguments in (
                    (["inference"], enhance),
                    (["evaluate"], "--dataset_dir DIR"),
                    (first_stage, "--dataset_dir DIR"),
                )
                if texts and texts[0] in has
            ],
        ),
        (
            "On a GPU with TensorRT (`pip install polygraphy 'tensorrt>=10.8,<11'`), not run on one yet:",
            [_run(["inference", "inference_trt"], enhance)] if "inference_trt" in has else [],
        ),
        (
            "Check it as the model zoo does; `verify_metadata` gets the zoo's schema from GitHub:",
            [
                "python -m monai.bundle verify_metadata --meta_file configs/metadata.json --filepath eval/schema.json",
                f"python -m monai.bundle verify_net_in_out {definition}",
                *([f"python -m monai.bundle ckpt_export {definition} {files}"] if can_be_scripted else []),
            ],
        ),
    ]
    named = "".join(line for _, lines in blocks for line in lines)
    arguments = {"inference": enhance, "evaluate": "--dataset_dir DIR", "train": "--dataset_dir DIR"}
    others = [
        _run([base, name], arguments[base])
        for name in sorted(name for name in has - _FEDERATED if f"/{name}.yaml" not in named)
        for base in [next((base for base in arguments if name.startswith(base)), "train")]
    ]
    blocks.append(("With further texts, each of which says in its first lines what it changes:", others))
    parts = [f"{sentence}\n```\n{chr(10).join(lines)}\n```\n" for sentence, lines in blocks if lines]
    return (
        "## Bundle commands\n"
        "These run in the folder of this bundle, with the packages below and nothing else. From another folder, set "
        "PYTHONPATH to that of this bundle first: `verify_net_in_out` and `ckpt_export` do not look for its code. "
        "Commands that begin with `monai-sr` need the package monai-sr-bundle.\n\n" + "\n".join(parts)
    )


def _notes(bundle: Bundle, folder: Path, has_curve: bool) -> str:
    """Return notes on files that are packed, and on some that are not."""
    onnx_names = [name for scale in bundle.scales for name in onnx_files(bundle.at_scale(scale))]
    names = ", ".join(f"`models/{name}`" for name in onnx_names)
    notes = [
        f"- ONNX: {names}, opset 17, for any batch, rows and columns, equal to PyTorch within 1e-4. Take them in place "
        "of what `python -m monai.bundle onnx_export` or `trt_export` would write, for one size.",
        "- TensorRT speed-up: not measured.",
        f"- DICOM files that are compressed by JPEG 2000, JPEG-LS or lossless JPEG need decoders too: `{PLUGINS}`.",
    ]
    if training_stages(bundle):
        volume = ", and `spacing_mm`, as 0.7x0.7x5.0, of each NIfTI volume" if bundle.modality == "CT" else ""
        is_native = "films" in bundle.facts or "scans" in bundle.facts
        for_stages = ", and to a stage on films or scans the options of the fine-tuning command" if is_native else ""
        notes.insert(
            0,
            f"- DIR is a folder of image sets: {', '.join(f'`{name}`' for name in bundle.facts['sets'])}, each with a "
            f"`manifest.csv`; for sets of other names, add `--sets \"['NAME']\"`{for_stages}. Its columns are `file`, "
            f"`split` (train, val or test), `license` and `patient_id`{volume}; no patient is in two splits.",
        )
    if any("--backbone" in stage for stage in _stages(bundle, folder / "configs")):
        notes.append("- `--backbone FILE`: weights of SqueezeNet 1.0 as .npz, which are not part of this bundle.")
    if bundle.family.name == "diffusion":
        notes.append(
            "- The network itself, given an image, draws one sample from noise of its own. The workflows draw tile by "
            "tile with a seed, so that large images fit into memory and results can be repeated."
        )
    if (folder / "configs" / "federated.yaml").is_file():
        notes.append(
            "- Federated rounds with MONAI alone, by its `MonaiAlgo`: the first lines of `configs/federated.yaml` and "
            "`configs/federated_filters.yaml` say how."
        )
    if has_curve:
        notes.append(f"- Training curve: [{CURVE}]({CURVE}), one row for each validation.")
    variants = ", ".join(f"`:{path.name}`" for path in sorted((bundle.folder / "variants").glob("*")))
    if variants:
        notes.append(f"- Variants are in the source repository alone, not in this bundle: {variants}.")
    return "\n" + "\n".join(notes) + "\n"


def _requirements(metadata: dict[str, Any]) -> list[str]:
    version_keys = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    versions = {name: metadata[key] for name, key in version_keys.items()} | metadata["required_packages_version"]
    return [f"{name}=={version}" for name, version in versions.items()]


def _stages(bundle: Bundle, configs: Path) -> list[str]:
    """Return one command for each stage of the training; a later one begins with the weights of the one before it."""
    overlays = training_overlays(bundle)
    commands = []
    for number, overlay in enumerate(overlays):
        arguments = f"--initial_weights runs/{number}/model.pt " if number else ""
        arguments += "--backbone FILE " if needs_backbone(configs, overlay) else ""
        output = f" --output_dir runs/{number + 1}" if len(overlays) > 1 else ""
        commands.append(_run(["train", *overlay], f"{arguments}--dataset_dir DIR{output}"))
    return commands


def _fine_tuning(bundle: Bundle, configs: Path, metadata: dict[str, Any]) -> list[str]:
    """Return the commands that go on with the last stage of the weights; of a flow, with the expected image first."""
    trained = [f"train_{each['stage']}" for each in metadata["training"]["stages"]] if "training" in metadata else []
    overlays = training_overlays(bundle)
    overlay = next((each for each in overlays if trained and trained[-1] in each), [])
    begun = [] if bundle.family.name != "flow" else [overlays[-2]]
    commands = []
    for number, names in enumerate([*begun, overlay]):
        images = next((_OWN_IMAGES[name] for name in names if name in _OWN_IMAGES), "")
        weights = "--initial_weights tuned/1/model.pt " if number else ""
        backbone = "--backbone FILE " if needs_backbone(configs, names) else ""
        output = f" --output_dir tuned{f'/{number + 1}' if begun else ''}"
        commands.append(_run(["train", *names, "fine_tune"], f"{weights}{backbone}--dataset_dir DIR{images}{output}"))
    return commands


def _run(configs: list[str], arguments: str, gpus: int = 0) -> str:
    """Return the command that runs texts of `configs/`, the later laid over the earlier."""
    python = f"torchrun --standalone --nproc_per_node={gpus}" if gpus else "python"
    files = [f"configs/{name}.yaml" for name in configs]
    named = files[0] if len(files) == 1 else '"[' + ",".join(f"'{file}'" for file in files) + ']"'
    return f"{python} -m monai.bundle run --config_file {named} {arguments}"
