import onnx
import pytest
from monai_sr_bundle.backends.onnx_backend import OnnxBackend
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import copied, signed


def test_a_network_with_other_ends_is_refused(tmp_path):
    folder = copied(tmp_path)
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].name = "pixels"
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "image" else name for name in node.input]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(
        BundleError, match=r"model\.onnx goes from pixels to pred, expected .*image to pred.*monai-sr export"
    ):
        OnnxBackend(find_bundle(str(signed(folder))))


def test_weights_in_another_file_which_no_hash_covers_are_refused(tmp_path):
    folder = copied(tmp_path)
    onnx.save(
        onnx.load(folder / "model.onnx"), folder / "model.onnx", save_as_external_data=True, location="card.bin",
        size_threshold=0,
    )  # fmt: skip
    with pytest.raises(BundleError, match=r"model\.onnx takes its weights from another file, expected them inside"):
        OnnxBackend(find_bundle(str(signed(folder))))


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("[ONNXRuntimeError] : 6 : Non-zero status code while running Conv node: std::bad_alloc", MemoryError),
        ("Failed to allocate memory for requested buffer of size 12", MemoryError),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions", RuntimeError),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(message, error):
    """`test_lack_of_memory.py` lets it really run out."""

    class Session:
        def run(self, *_arguments):
            raise RuntimeError(message)

    backend = OnnxBackend(find_bundle("bicubic"))
    backend._models["model"]._session = Session()
    with pytest.raises(error, match=r"bad_alloc|allocate|INVALID"):
        backend.run("model", None)


def test_the_number_of_threads_is_that_of_everyone_else(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert OnnxBackend(find_bundle("bicubic"), "cpu").threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")  # of nested loops
    assert OnnxBackend(find_bundle("bicubic"), "cpu").threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert OnnxBackend(find_bundle("bicubic"), "cpu").threads >= 1
