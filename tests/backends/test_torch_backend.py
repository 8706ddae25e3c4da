"""The network of a bundle that may come from anywhere: loaded as numbers, never run as code."""

import pickle
import socket

import pytest
import torch
from monai_sr_bundle.backends.torch_backend import MONAI_NETWORKS, TorchBackend, build_error_scale, build_network
from monai_sr_bundle.backends.torch_networks import TorchNetworks
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.shipped_bundles import all_bundles, all_variants, find_bundle

from tests.changed_bundles import copied, signed, with_facts

EDSR = "monai_sr_bundle.networks.edsr.EDSR"


class Payload:
    """An object of an attacker, which makes a file where its pickle is loaded."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (open, (str(self.proof), "w"))


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_the_weights_is_not_run(tmp_path, new_format):
    folder, proof = copied(tmp_path), tmp_path / "proof"
    state = torch.load(folder / "model.pt", weights_only=True) | {"head.bias": Payload(proof)}
    torch.save(state, folder / "model.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(
        BundleError, match=r"model\.pt cannot be read as tensors alone .*Nothing of it was run"
    ) as raised:
        TorchBackend(find_bundle(str(signed(folder))))
    assert "\n" not in str(raised.value)
    assert not proof.exists()
    torch.load(folder / "model.pt", weights_only=False)
    assert proof.exists()  # the payload was a real one


def test_a_bare_pickle_is_not_run(tmp_path):
    folder, proof = copied(tmp_path), tmp_path / "proof"
    (folder / "model.pt").write_bytes(pickle.dumps(Payload(proof), protocol=2))
    with pytest.raises(BundleError, match="cannot be read as tensors alone"):
        TorchBackend(find_bundle(str(signed(folder))))
    assert not proof.exists()


@pytest.mark.parametrize(
    "state",
    [
        [torch.zeros(3)],
        {"head.bias": 3.0},
        {1: torch.zeros(3)},
        torch.zeros(3),
        {"head.bias": torch.zeros(3, dtype=torch.complex64)},
    ],
)
def test_weights_that_are_no_state_dict_are_refused(tmp_path, state):
    folder = copied(tmp_path)
    torch.save(state, folder / "model.pt")
    with pytest.raises(BundleError, match=r"model\.pt holds .*, expected a state dict of tensors.*monai-sr export"):
        TorchBackend(find_bundle(str(signed(folder))))


def test_weights_of_another_network_are_refused(tmp_path):
    folder = with_facts(
        copied(tmp_path), network_def={"_target_": EDSR, "scale": "@scale", "channels": 48, "blocks": 7}
    )
    with pytest.raises(BundleError, match=r"model\.pt does not belong to its network_def \(.*Install the bundle again"):
        TorchBackend(find_bundle(str(folder)))


def expression(proof):
    return f"$open({str(proof)!r}, 'w')"


HOSTILE = {
    "a function": lambda proof: {"_target_": "os.mkdir", "path": str(proof)},
    "a function of builtins": lambda proof: {"_target_": "builtins.open", "file": str(proof), "mode": "w"},
    "something MONAI imported": lambda proof: {"_target_": "monai.networks.nets.unet.torch.load", "f": str(proof)},
    "a function of MONAI": lambda proof: {"_target_": "monai.networks.utils.normal_init", "m": str(proof)},
    "a class that is no network": lambda proof: {"_target_": "monai_sr_bundle.networks.edsr.__loader__", "a": 1},
    "a module that is not there": lambda proof: {"_target_": "monai_sr_bundle.networks.evil.Net"},
    "an expression": lambda proof: {"_target_": EDSR, "scale": expression(proof)},
    "an expression in a list": lambda proof: {"_target_": EDSR, "scale": [4, expression(proof)]},
    "an expression behind a reference": lambda proof: {"_target_": EDSR, "scale": "@hidden"},
    "an expression in a list behind a reference": lambda proof: {"_target_": EDSR, "scale": "@hidden_list"},
    "an expression in a block behind a reference": lambda proof: {"_target_": EDSR, "scale": "@hidden_block"},
    "a nested function": lambda proof: {"_target_": EDSR, "scale": {"_target_": "os.mkdir", "path": str(proof)}},
    "an expression as the target": lambda proof: {"_target_": expression(proof)},
    "a requirement": lambda proof: {"_target_": EDSR, "_requires_": [expression(proof)]},
    "a macro": lambda proof: {"_target_": EDSR, "scale": f"%{proof}"},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_in_a_bundles_text_is_run(tmp_path, what):
    proof = tmp_path / "proof"
    hidden = {
        "hidden": expression(proof),
        "hidden_list": [4, expression(proof)],
        "hidden_block": {"steps": 4, "sampler": expression(proof)},
    }
    folder = with_facts(copied(tmp_path), network_def=HOSTILE[what](proof), **hidden)
    with pytest.raises(BundleError, match=r"expected (a network of|plain values).* Nothing of the bundle was run"):
        TorchBackend(find_bundle(str(folder)))
    assert not proof.exists()


@pytest.mark.parametrize("definition", [None, {}, "EDSR", {"_target_": 4}, [EDSR]])
def test_a_text_without_a_network_is_refused(tmp_path, definition):
    folder = with_facts(copied(tmp_path), network_def=definition)
    with pytest.raises(BundleError, match=r"model\.yaml has no network_def with a _target_.*Install"):
        build_network(find_bundle(str(folder)))


@pytest.mark.parametrize("arguments", [{"channels": "many"}, {"depth": 3}, {"scale": "@nowhere"}])
def test_arguments_that_the_network_refuses_are_told(tmp_path, arguments):
    folder = with_facts(copied(tmp_path), network_def={"_target_": EDSR, **arguments})
    with pytest.raises(BundleError, match=r"EDSR cannot be made with \{.*Install the bundle again"):
        build_network(find_bundle(str(folder)))


MONAI = {
    "monai.networks.nets.basic_unet.BasicUNet": {"features": [8, 8, 8, 8, 8, 8]},
    "monai.networks.nets.unet.UNet": {"channels": [4, 8], "strides": [2]},
}


@pytest.fixture
def _no_network(monkeypatch):
    def refuse(*_arguments, **_keywords):
        raise AssertionError("a bundle asks for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("target", sorted(MONAI_NETWORKS))
def test_a_network_of_monai_may_be_named_if_it_downloads_nothing(tmp_path, target):
    definition = {"_target_": target, "spatial_dims": 2, "in_channels": 1, "out_channels": 1, **MONAI[target]}
    network = build_network(find_bundle(str(with_facts(copied(tmp_path), network_def=definition))))
    assert type(network).__name__ == target.rpartition(".")[2]
    assert not network.training


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("bundle", [bundle.name for bundle in all_bundles()])
def test_no_shipped_network_needs_the_network_of_the_machine(bundle):
    for variant in (shipped := find_bundle(bundle), *all_variants(shipped)):
        if not variant.name.endswith(":published"):  # of the same classes, and large
            build_network(variant)
            build_error_scale(variant)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", ["EfficientNetBN", "DenseNet121", "SENet154", "TorchVisionFCModel", "no.such"])
def test_other_networks_of_monai_are_refused_and_download_nothing(tmp_path, name):
    definition = {"_target_": f"monai.networks.nets.{name}", "pretrained": True}
    folder = with_facts(copied(tmp_path), network_def=definition)
    with pytest.raises(BundleError, match=r"expected a network of .* Nothing of the bundle was run"):
        build_network(find_bundle(str(folder)))


def test_pretrained_weights_are_refused(tmp_path):
    folder = with_facts(copied(tmp_path), network_def={"_target_": EDSR, "scale": "@scale", "use_pretrained": True})
    with pytest.raises(BundleError, match=r"asks for pretrained weights, which would be downloaded.*Nothing"):
        build_network(find_bundle(str(folder)))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"channels": 2**17}, r"it needs [\d,]+ bytes of memory, and [\d,]+ are free"),
        ({"blocks": 10**9}, r"it has more than 5,000 modules and parameters"),
    ],
)
def test_a_network_beyond_this_machine_is_refused_before_it_takes_memory(tmp_path, arguments, reason):
    folder = with_facts(copied(tmp_path), network_def={"_target_": EDSR, "scale": "@scale", **arguments})
    with pytest.raises(BundleError, match=reason):
        build_network(find_bundle(str(folder)))


def test_a_network_with_parameters_needs_weights(tmp_path):
    folder = copied(tmp_path, "bicubic")
    with_facts(folder, network_def={"_target_": EDSR, "scale": "@scale"})
    with pytest.raises(BundleError, match=r"its network has parameters, but metadata\.json lists no model\.pt"):
        TorchBackend(find_bundle(str(folder)))


def test_the_network_runs_in_full_precision_and_the_settings_of_others_stay():
    settings = []

    class Watched(torch.nn.Module):
        def forward(self, image):
            cudnn = torch.backends.cudnn
            settings.append((cudnn.allow_tf32, cudnn.benchmark, torch.is_inference_mode_enabled()))
            return image

    bundle = find_bundle("bicubic")
    networks = TorchNetworks(Watched(), bundle.family.parts, "cpu")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    networks.run("model", torch.zeros(1, 1, 8, 8).numpy())
    assert settings == [(False, False, True)]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before
