"""The precision in which a training multiplies."""

import json

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai_sr_bundle.training.training import train
from monai_sr_bundle.training.weights import bfloat16_pays
from torch.nn import functional

from tests.tiny_flow import tiny_flow


@pytest.mark.parametrize(
    ("device", "capabilities", "pays"),
    [
        ("cuda:0", {}, True),
        ("cpu", {"amx_bf16": True}, True),
        ("cpu", {"amx_bf16": False, "avx512_bf16": True}, True),
        ("cpu", {}, False),
        ("mps", {"amx_bf16": True}, False),
    ],
)
def test_half_precision_is_for_devices_that_multiply_it_faster(monkeypatch, device, capabilities, pays):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bfloat16_pays(torch.device(device)) is pays


@pytest.mark.parametrize(("pays", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_training_multiplies_as_it_says_and_keeps_no_metadata(data, tmp_path, monkeypatch, pays, precision):
    monkeypatch.setattr("monai_sr_bundle.training.weights.bfloat16_pays", lambda device: pays)
    products = set()
    convolve = functional.conv2d

    def watched(image, weight, *args, **kwargs):
        result = convolve(image, weight, *args, **kwargs)
        if torch.is_grad_enabled():
            products.add((type(image) is MetaTensor, result.dtype))
        return result

    monkeypatch.setattr(torch.nn.modules.conv.F, "conv2d", watched)
    bundle = tiny_flow(tmp_path / "bundle", sets=["drawn"], reduce=1)
    quick = {"batch_size": 2, "validations": 1, "progress": False, "patch_size": 8}
    weights = train(str(bundle), data, tmp_path / "out", iterations=2, **quick)
    assert products == {(False, torch.bfloat16 if pays else torch.float32)}
    stage = json.loads((tmp_path / "out" / "training.json").read_text())["stages"][-1]
    assert stage["precision"] == precision
    assert {value.dtype for value in torch.load(weights, weights_only=True).values()} == {torch.float32}
