import onnx
import pytest
from monai_sr_bundle.backends.onnx_backend import OnnxBackend
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import copied, signed


def test_weights_in_another_file_which_no_hash_covers_are_refused(tmp_path):
    folder = copied(tmp_path)
    onnx.save(
        onnx.load(folder / "model.onnx"), folder / "model.onnx", save_as_external_data=True, location="card.bin",
        size_threshold=0,
    )  # fmt: skip
    with pytest.raises(BundleError, match=r"model\.onnx takes its weights from another file, expected them inside"):
        OnnxBackend(find_bundle(str(signed(folder))))


def test_the_number_of_threads_is_that_of_everyone_else(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert OnnxBackend(find_bundle("bicubic"), "cpu").threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")  # of nested loops
    assert OnnxBackend(find_bundle("bicubic"), "cpu").threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert OnnxBackend(find_bundle("bicubic"), "cpu").threads >= 1
