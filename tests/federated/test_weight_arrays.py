"""Weights without PyTorch: the same arrays, no other content, and no PyTorch in the process that sends answers."""

import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.weight_arrays import read_arrays
from monai_sr_bundle.shipped_bundles import all_bundles
from monai_sr_bundle.training.stages import training_stages
from monai_sr_bundle.training.weights import read_weights

TRAINED = [bundle for bundle in all_bundles() if training_stages(bundle)]


@pytest.mark.parametrize("bundle", TRAINED, ids=lambda bundle: bundle.name)
def test_the_arrays_are_the_tensors_of_every_bundle(bundle):
    path = bundle.weights("model.pt")[0]
    arrays, tensors = read_arrays(path), read_weights(path)
    assert list(arrays) == list(tensors)
    for key, tensor in tensors.items():
        assert arrays[key].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(arrays[key], tensor.numpy())


def test_a_view_of_a_larger_tensor_is_read_as_it_is(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save({"part": whole[1:, ::2], "turned": whole.T, "none": whole[:0], "one": torch.tensor(3.0)}, tmp_path / "a")
    arrays = read_arrays(tmp_path / "a")
    np.testing.assert_array_equal(arrays["part"], whole[1:, ::2].numpy())
    np.testing.assert_array_equal(arrays["turned"], whole.T.numpy())
    assert arrays["none"].shape == (0, 6)
    assert arrays["one"] == 3


class Dangerous:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", [{"a": Dangerous()}, {"a": "text"}, torch.zeros(3)])
def test_anything_but_arrays_by_name_is_refused(content, tmp_path, capsys):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: (cannot be read as weights|holds no network's weights)"):
        read_arrays(tmp_path / "model.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_weights_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt: cannot be read as weights"):
        read_arrays(tmp_path / "model.pt")


@pytest.mark.parametrize("damage", [(b"PK\1\2", 10, 77), (b"PK\3\4", 6, 1)], ids=["unknown method", "password"])
def test_a_damaged_file_of_weights_is_refused(damage, tmp_path):
    mark, offset, value = damage
    torch.save({"a": torch.zeros(3)}, tmp_path / "model.pt")
    content = bytearray((tmp_path / "model.pt").read_bytes())
    content[content.index(mark) + offset] = value
    if value == 1:
        content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt: cannot be read as weights"):
        read_arrays(tmp_path / "model.pt")


def test_the_process_that_sends_answers_imports_no_pytorch():
    """It runs beside every trainer, at every site, and would take 300 MB more."""
    lines = (
        "import sys",
        "from monai_sr_bundle.federated.executor import TrainExecutor",
        "from monai_sr_bundle.federated.filters import ListedOnly",
        "ListedOnly('chest_xray_edsr_x4')",
        "assert not {'torch', 'monai'} & set(sys.modules)",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_the_server_of_a_study_imports_no_monai():
    lines = (
        "import sys",
        "import monai_sr_bundle.federated.controller, monai_sr_bundle.federated.persistor",
        "assert not {'monai', 'ignite'} & set(sys.modules)",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
