"""The choice of a backend, its requirements, and the same result from each of them."""

import importlib.util

import numpy as np
import psutil
import pytest

from monai_sr_bundle.backends.opening import choose_backend, open_backend
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.errors import BundleError
from tests.changed_bundles import copied, damaged, signed, with_metadata

for_each_file = pytest.mark.parametrize(("backend", "file"), [("torch", "model.pt"), ("onnx", "model.onnx")])
BUNDLES = ("bicubic", "chest_ct_edsr_x4", "chest_xray_edsr_x4")


@pytest.fixture
def without(monkeypatch):
    """Hide installed packages from whoever asks whether they are there."""
    really = importlib.util.find_spec

    def hide(*names):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else really(name))

    return hide


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("shape", [(8, 8), (37, 64), (150, 160)])
def test_pytorch_and_onnx_runtime_agree(name, shape):
    bundle = find_bundle(name)
    image = np.random.default_rng(0).random((1, 1, *shape), dtype=np.float32) * 1.6 - 0.3  # beyond the window, too
    results = [open_backend(bundle, backend, "cpu").run("model", image) for backend in ("torch", "onnx")]
    assert all(result.dtype == np.float32 for result in results)
    assert results[0].shape == results[1].shape == (1, 1, 4 * shape[0], 4 * shape[1])
    assert np.abs(results[0] - results[1]).max() < 1e-4  # measured: 4e-7


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_backend_says_what_it_is_and_leaves_its_input_alone(backend):
    bundle = find_bundle("chest_xray_edsr_x4")
    loaded_backend = open_backend(bundle, backend, "cpu")
    weights = bundle.metadata["weights_sha256"]["model.pt" if backend == "torch" else "model.onnx"]
    assert (loaded_backend.name, loaded_backend.device, loaded_backend.weights_sha256) == (backend, "cpu", weights)
    assert 0 < loaded_backend.free_bytes() <= psutil.virtual_memory().total
    image = np.random.default_rng(0).random((1, 1, 20, 20), dtype=np.float32)
    before = image.copy()
    np.testing.assert_array_equal(loaded_backend.run("model", image), loaded_backend.run("model", image))
    np.testing.assert_array_equal(image, before)


def test_bicubic_has_no_weights_in_pytorch():
    assert open_backend(find_bundle("bicubic"), "torch").weights_sha256 == ""


def test_auto_takes_pytorch_only_where_it_is_installed_with_monai(without):
    assert choose_backend("auto") == "torch"
    without("monai")
    assert choose_backend("auto") == "onnx"
    without("torch")
    assert choose_backend("auto") == "onnx"
    assert open_backend(find_bundle("chest_ct_edsr_x4")).name == "onnx"
    assert choose_backend("torch") == "torch"


def test_a_missing_backend_is_told_with_what_to_install(without):
    bundle = find_bundle("chest_ct_edsr_x4")
    without("torch", "monai")
    with pytest.raises(BundleError, match=r"--backend torch needs torch and monai, .*'monai-sr-bundle\[torch\]'"):
        open_backend(bundle, "torch")
    without("monai")
    with pytest.raises(BundleError, match="--backend torch needs monai, not installed here"):
        open_backend(bundle, "torch")
    without("onnxruntime")
    with pytest.raises(BundleError, match="--backend onnx needs onnxruntime, .*pip install onnxruntime"):
        open_backend(bundle, "onnx")


@pytest.mark.parametrize(("backend", "who"), [("torch", "PyTorch sees no GPU"), ("onnx", "no CUDA provider")])
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence(monkeypatch, backend, who):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    bundle = find_bundle("bicubic")
    with pytest.raises(BundleError, match=rf"--device cuda: .*{who}.*--device auto or cpu"):
        open_backend(bundle, backend, "cuda")
    assert open_backend(bundle, backend, "auto").device == "cpu"


@for_each_file
def test_damaged_weights_are_not_loaded(tmp_path, monkeypatch, backend, file):
    def load(*_arguments, **_options):
        raise AssertionError("loaded")

    monkeypatch.setattr("torch.load", load)
    monkeypatch.setattr("onnxruntime.InferenceSession", load)
    bundle = find_bundle(str(damaged(copied(tmp_path), file)))
    with pytest.raises(BundleError, match=rf"{file} has SHA-256 \w{{12}}\.\.\., expected .*not loaded. Install"):
        open_backend(bundle, backend)


@for_each_file
def test_missing_weights_are_named(tmp_path, backend, file):
    folder = copied(tmp_path)
    (folder / file).unlink()
    with pytest.raises(BundleError, match=rf"chest_xray_edsr_x4: {file} is missing in .*Install the bundle again"):
        open_backend(find_bundle(str(folder)), backend)


@for_each_file
def test_weights_that_the_metadata_does_not_list_are_not_used(tmp_path, backend, file):
    folder = copied(tmp_path)
    hashes = find_bundle("chest_xray_edsr_x4").metadata["weights_sha256"]
    with_metadata(folder, weights_sha256={name: sha for name, sha in hashes.items() if name != file})
    with pytest.raises(BundleError, match=rf"(lists|has) no {file}"):
        open_backend(find_bundle(str(folder)), backend)


@for_each_file
def test_a_file_that_holds_no_network_is_refused_without_a_traceback(tmp_path, backend, file):
    folder = copied(tmp_path)
    (folder / file).write_bytes(b"no weights at all")
    with pytest.raises(BundleError, match=rf"{file}.*Install the bundle again") as raised:
        open_backend(find_bundle(str(signed(folder))), backend)
    assert "\n" not in str(raised.value)
