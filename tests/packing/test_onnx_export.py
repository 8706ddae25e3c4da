import shutil

import numpy as np
import onnx
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.errors import BundleError, InputError, OutputError
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.packing.onnx_export import export_onnx
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.changed_bundles import with_metadata
from tests.tiny_flow import released_flow


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = EDSR(channels=8, blocks=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(find_bundle("chest_xray_edsr_x4").folder, tmp_path / "chest_xray_edsr_x4")


def test_the_exported_network_is_one_that_tensorrt_reads_without_a_path_of_this_machine(network, tmp_path):
    export_onnx(network, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [17]
    # The cubic Resize is what older parsers refuse.
    assert "Resize" not in {node.op_type for node in model.graph.node}
    assert not any(text in (tmp_path / "model.onnx").read_bytes() for text in (b"/monai_sr_bundle/", b".py"))


def test_a_difference_from_torch_is_refused_and_not_kept(tmp_path):
    class Moody(torch.nn.Module):
        def forward(self, image):
            # Tracing freezes the branch of the example; other sizes then go wrong.
            return image * (1.0 if image.shape[-1] == 40 else 2.0)

    with pytest.raises(RuntimeError, match="ONNX Runtime differs from PyTorch by .*; not kept"):
        export_onnx(Moody(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_numbers_that_are_none_are_a_difference(tmp_path):
    class Undefined(torch.nn.Module):
        def forward(self, image):
            return (image - 2).sqrt()  # of numbers below 0

    with pytest.raises(RuntimeError, match="ONNX Runtime differs from PyTorch by .*; not kept"):
        export_onnx(Undefined(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_released_weights_are_those_of_the_run_and_the_hashes_follow(copied, tmp_path):
    torch.manual_seed(1)
    network = EDSR()
    torch.save(network.state_dict(), tmp_path / "run.pt")
    lines = release(str(copied), tmp_path / "run.pt")
    (removed,) = (line for line in lines if line.startswith("removed"))
    assert removed == (
        "removed: learnt_from.txt, error_bars.pt, error_bars.onnx, calibration.json, error_bars_training, input_range, "
        "training_curve.csv, training (of the former weights)"
    )
    assert "training" not in open_bundle(copied).metadata
    assert not any((copied / file).exists() for file in ("error_bars.pt", "calibration.json", "learnt_from.txt"))
    assert not any(line.startswith("removed") for line in release(str(copied), tmp_path / "run.pt"))
    bundle = open_bundle(copied)
    state = torch.load(bundle.weights("model.pt")[0], weights_only=True)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value)
    assert bundle.weights("model.onnx")[1] in "\n".join(lines)
    assert bundle.metadata["parameters"] == 360_736
    assert [path.name for path in copied.iterdir() if path.name.startswith(".")] == []


def test_an_export_of_new_weights_says_what_stays_of_the_former_ones(tmp_path):
    folder = with_metadata(released_flow(tmp_path)[0], input_limits={"noise_percent": [0.0, 2.0]})
    state = torch.load(tmp_path / "trained.pt", weights_only=True)
    state["tail.bias"] += 1
    torch.save(state, tmp_path / "2.pt")
    lines = "\n".join(release(str(folder), tmp_path / "2.pt"))
    assert open_bundle(folder).metadata["input_limits"] == {"noise_percent": [0.0, 2.0]}
    assert "kept: input_limits in metadata.json, of the inputs that the former weights were trained on" in lines
    assert "measure theirs with `monai-sr export NAME --learnt-from DIR`" in lines
    assert "kept: eval_metrics in metadata.json, the figures of the former weights. Remove them, or write down" in lines
    assert "kept" not in "\n".join(release(str(folder), tmp_path / "2.pt"))  # the same weights again


def test_weights_of_another_flow_are_not_released_and_an_export_states_the_flow_of_its_files(tmp_path):
    folder, _ = released_flow(tmp_path)
    assert open_bundle(folder).metadata["process"] == [0.5, 0.0175]
    with_metadata(folder, process=None)
    release(str(folder))
    assert open_bundle(folder).metadata["process"] == [0.5, 0.0175]
    state = torch.load(tmp_path / "trained.pt", weights_only=True)
    torch.save({**state, "process": torch.tensor([0.5, 0.03])}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"other\.pt: the weights were trained for noise 0\.5 and residual_std 0\.03"):
        release(str(folder), tmp_path / "other.pt")


def test_a_run_brings_its_checkpoint_and_its_training(copied, tmp_path):
    torch.save({"model": EDSR().state_dict(), "budget": {"spent_seconds": 1.0}}, tmp_path / "last.pt")
    (tmp_path / "training.json").write_text('{"minutes": 3.0, "stages": []}')
    (tmp_path / "training_curve.csv").write_text("minutes,iteration,metric,value\n3.00,10,psnr,30.0\n")
    release(str(copied), tmp_path / "last.pt")
    assert open_bundle(copied).weights("model.pt")
    assert open_bundle(copied).metadata["training"] == {"minutes": 3.0, "stages": []}
    assert "3.00,10,psnr,30.0" in (copied / "training_curve.csv").read_text()


def test_weights_of_another_network_or_of_none_are_refused(copied, tmp_path, network):
    before = (copied / "model.pt").read_bytes()
    torch.save(network.state_dict(), tmp_path / "run.pt")
    with pytest.raises(BundleError, match="run.pt: does not belong to the network of chest_xray_edsr_x4"):
        release(str(copied), tmp_path / "run.pt")
    (tmp_path / "run.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match="run.pt: cannot be read as weights"):
        release(str(copied), tmp_path / "run.pt")
    assert (copied / "model.pt").read_bytes() == before


def test_a_packed_bundle_and_a_variant_without_new_weights_are_not_exported(packed):
    with pytest.raises(BundleError, match="is packed; export works on the bundle's source folder"):
        release(str(packed("bicubic")))
    with pytest.raises(BundleError, match="chest_xray_edsr_x4:artifacts is a variant, which has no ONNX files"):
        release("chest_xray_edsr_x4:artifacts")


def test_a_variant_gets_weights_for_pytorch_and_leaves_its_bundle_alone(copied, tmp_path):
    folder = copied / "variants" / "other"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text("{}\n")
    (folder / "metadata.json").write_text('{"parameters": 0, "weights_sha256": {}}')
    before = (copied / "metadata.json").read_bytes()
    torch.save(EDSR().state_dict(), tmp_path / "run.pt")
    release(str(folder), tmp_path / "run.pt")
    variant = open_bundle(folder)
    assert variant.parameters == 360_736
    assert variant.weights("model.pt")[0] == folder.resolve() / "model.pt"
    assert not variant.has_file("model.onnx")
    assert (copied / "metadata.json").read_bytes() == before
    assert "authors" not in (folder / "metadata.json").read_text()


@pytest.fixture
def film():
    return draw_phantom(64).astype(np.float32)


@pytest.fixture
def without_onnx(tmp_path):
    return shutil.copytree(find_bundle("chest_xray_srcnn_x4").folder, tmp_path / "chest_xray_srcnn_x4")


def test_export_writes_the_onnx_files_that_a_bundle_lacks_and_keeps_its_weights(without_onnx, film):
    before = open_bundle(without_onnx).metadata
    with pytest.raises(BundleError, match="has no model.onnx. Run `monai-sr export chest_xray_srcnn_x4`"):
        enhance(film, str(without_onnx), backend="onnx")
    release(str(without_onnx))
    bundle = open_bundle(without_onnx)
    assert list(bundle.metadata["weights_sha256"]) == ["model.pt", "error_bars.pt", "model.onnx", "error_bars.onnx"]
    for name in ("model.pt", "error_bars.pt"):
        assert bundle.weights(name)[1] == before["weights_sha256"][name]
    assert {**bundle.metadata, "weights_sha256": before["weights_sha256"]} == before
    by_onnx, by_torch = (enhance(film, str(without_onnx), backend=name, error_bars=True) for name in ("onnx", "torch"))
    np.testing.assert_allclose(by_onnx.image.pixels, by_torch.image.pixels, atol=1e-4)
    np.testing.assert_allclose(by_onnx.error_bars.half_width, by_torch.error_bars.half_width, atol=1e-3)


def test_a_bundle_of_several_scales_gets_an_onnx_file_for_each(film, tmp_path):
    folder = shutil.copytree(find_bundle("chest_xray_blind").folder, tmp_path / "chest_xray_blind")
    hashes = find_bundle("chest_xray_blind").metadata["weights_sha256"]
    with_metadata(folder, weights_sha256={name: hashes[name] for name in hashes if name.endswith(".pt")})
    for path in folder.glob("*.onnx"):
        path.unlink()
    with pytest.raises(BundleError, match="has no model_x2.onnx. Run `monai-sr export chest_xray_blind`"):
        enhance(film, str(folder), scale=2, backend="onnx")
    release(str(folder))
    names = [f"{part}_x{scale}.onnx" for part in ("error_bars", "model", "velocity") for scale in (2, 3, 4)]
    assert sorted(path.name for path in folder.glob("*.onnx")) == names
    for scale in (2, 3, 4):
        by_onnx, by_torch = (enhance(film, str(folder), scale=scale, backend=name) for name in ("onnx", "torch"))
        assert by_onnx.image.pixels.shape == (1, 64 * scale, 64 * scale)
        np.testing.assert_allclose(by_onnx.image.pixels, by_torch.image.pixels, atol=1e-4)


def test_a_folder_that_cannot_be_written_is_told_in_one_line(without_onnx, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("monai_sr_bundle.images.staging.working_folder", refuse)
    with pytest.raises(OutputError, match="chest_xray_srcnn_x4"):
        release(str(without_onnx))
