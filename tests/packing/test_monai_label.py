"""A packed bundle in the stock `monaibundle` app of MONAI Label.

MONAI Label needs numpy < 2 and packages that this project does not have. So `label_infer` calls what BundleInferTask of
monailabel 0.8.5 calls, in its order (tasks/infer/bundle.py, tasks/infer/basic_infer.py, transform/post.py `Restored`,
transform/writer.py), as far as the array and the affine that its writer gives to ITK, and `label_train` what
BundleTrainTask calls (tasks/train/bundle.py) on one device.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Resize, SaveImaged
from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.errors import InputError


def label_infer(bundle: Path, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the array, ``[columns, rows(, slices)]``, and the affine of a result."""
    name = next(name for name in ("inference.json", "inference.yaml") if (bundle / "configs" / name).is_file())
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / name))
    config.config.update({"bundle_root": str(bundle), "use_click": False, "device": "cpu"})
    network = copy.deepcopy(config.get_parsed_content("network_def", instantiate=True))
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=False)

    data: dict[str, Any] = {"image": str(image), "image_path": str(image), "device": "cpu"}
    for transform in config.get_parsed_content("preprocessing", instantiate=True).transforms:
        data = transform(data)
    with torch.no_grad():
        data["pred"] = config.get_parsed_content("inferer", instantiate=True)(data["image"][None], network.eval())[0]
    for transform in config.get_parsed_content("postprocessing", instantiate=True).transforms:
        if not isinstance(transform, SaveImaged):  # MONAI Label writes the result itself
            data = transform(data)
    result = restored(data["pred"], data["image"])
    assert isinstance(result, MetaTensor)
    return result.array, result.affine.numpy()


def restored(result: torch.Tensor, image: Any) -> torch.Tensor:
    """`Restored` resamples to the grid of the input if the input's metadata name its shape."""
    size = image.meta.get("spatial_shape", result.shape[1:])[-len(result.shape[1:]) :]
    if tuple(result.shape[1:]) != tuple(size):
        result = Resize(spatial_size=size, mode="nearest")(result)
    assert image.meta.get("original_affine") is None  # else it replaces the affine of the result
    return result if result.ndim <= 3 or result.shape[0] > 1 else result[0]


def label_train(bundle: Path, items: list[dict[str, str]]) -> None:
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "train.json"))
    config.config.update({"bundle_root": str(bundle)})
    handlers = config.get("train#handlers", [])
    assert any(handler["_target_"] == "CheckpointLoader" for handler in handlers)  # else it adds one
    monai.bundle.run(
        run_id="run", init_id=None, final_id=None,
        meta_file=str(bundle / "configs" / "metadata.json"), config_file=str(bundle / "configs" / "train.json"),
        **{
            "bundle_root": str(bundle), "train#trainer#max_epochs": 50, "train#dataset#data": items[1:],
            "device": "cpu", "train#handlers": handlers, "validate#dataset#data": items[:1],
        },
    )  # fmt: skip


@pytest.mark.parametrize("name", ["chest_xray_edsr_x4", "chest_xray_blind", "chest_ct_blind", "chest_ct_throughplane"])
def test_training_in_the_stock_app_is_refused_in_a_sentence_that_says_where_to_train(packed, tmp_path, name):
    items = []
    for number in range(3):
        write_phantom_png(tmp_path / f"{number}.png", 64)
        items.append({key: str(tmp_path / f"{number}.png") for key in ("image", "label")})
    before = files_of(packed(name))
    with pytest.raises(Exception) as raised:  # noqa: PT011
        label_train(packed(name), items)
    cause = raised.value
    while cause.__cause__ is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    assert isinstance(cause, InputError)
    assert "not images and labels given one by one" in str(cause)
    assert files_of(packed(name)) == before


def files_of(bundle: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize("name", ["chest_xray_edsr_x4", "chest_xray_residual_flow_x4"])
def test_a_radiograph_comes_back_larger_in_grey_levels_twice_and_the_bundle_stays_as_it_was(packed, tmp_path, name):
    write_phantom_png(tmp_path / "chest.png", 40)
    before = files_of(packed(name))
    expected = enhance(tmp_path / "chest.png", name, backend="torch").image.pixels[0].T
    for _ in range(2):
        values, _ = label_infer(packed(name), tmp_path / "chest.png")
        assert values.dtype == np.uint8  # as PNG holds it
        assert values.shape == (160, 160)
        # It does not run networks channels last, which moves sums of floats.
        assert np.abs(values.astype(int) - expected).max() <= 1
    assert files_of(packed(name)) == before


@pytest.mark.parametrize("name", ["chest_ct_edsr_x4", "chest_ct_throughplane"])
def test_a_volume_comes_back_in_hu_on_the_finer_grid(packed, tmp_path, name):
    chest = np.stack([draw_phantom(40)[:, :32]] * 3, axis=2) * 1400 - 1000
    oblique = np.array([[0, -0.7, 0, 10], [0.7, 0, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.rint(chest).astype(np.int16), oblique), tmp_path / "ct.nii.gz")
    result = enhance(tmp_path / "ct.nii.gz", name, backend="torch")
    result.save(tmp_path / "expected.nii.gz")
    expected = nibabel.load(tmp_path / "expected.nii.gz")
    values, affine = label_infer(packed(name), tmp_path / "ct.nii.gz")
    assert values.shape == expected.shape
    assert np.abs(values.astype(int) - np.asarray(expected.dataobj)).max() <= 1
    np.testing.assert_allclose(affine, expected.affine, atol=1e-4)


def test_only_the_network_is_offered_as_a_model(packed):
    assert [path.name for path in (packed("chest_xray_residual_flow_x4") / "models").glob("*.pt")] == ["model.pt"]
