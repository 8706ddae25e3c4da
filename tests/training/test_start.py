import pytest
import torch
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.networks.edsr import EDSR, MDSR
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.networks.vdsr import VDSR
from monai_sr_bundle.training.weights import load_state, read_weights, start_from


@pytest.fixture
def network():
    return VDSR(channels=4, depth=3)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("stored", [lambda state: state, lambda state: {"model": state, "budget": {"iterations": 3}}])
def test_a_stage_begins_with_the_weights_of_another(network, tmp_path, stored):
    torch.save(stored(network.state_dict()), tmp_path / "model.pt")
    other = VDSR(channels=4, depth=3)
    assert not same(network, other)
    assert same(start_from(other, str(tmp_path / "model.pt")), network)


@torch.inference_mode()
def test_a_network_of_several_factors_and_slices_begins_with_the_weights_of_one_of_each(tmp_path, caplog):
    single = EDSR(scale=4, channels=4, blocks=1)
    torch.save(single.state_dict(), tmp_path / "model.pt")
    network = start_from(MDSR(channels=4, dilations=(1, 2), slices=3), str(tmp_path / "model.pt"))
    image = torch.rand(1, 3, 12, 12)
    torch.testing.assert_close(network(image), single(image[:, 1:2]))
    assert "knows single slices; their neighbours count nothing at the start" in caplog.text


def test_a_part_that_the_earlier_network_did_not_have_begins_anew_and_is_told(tmp_path, caplog):
    options = {"channels": (4, 4), "blocks": 1}
    earlier, later = SR3(**options), SR3(**options, bottleneck=2)
    torch.save(earlier.state_dict(), tmp_path / "model.pt")
    before = {name: value.clone() for name, value in later.named_parameters() if name.startswith("bottleneck")}
    started = start_from(later, str(tmp_path / "model.pt"))
    assert before
    for name, value in started.named_parameters():
        torch.testing.assert_close(value, before[name] if name in before else earlier.get_parameter(name))
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'model.pt'} has no bottleneck, which begins anew"
    ]
    torch.save(later.state_dict(), tmp_path / "model.pt")
    with pytest.raises(BundleError, match=r"does not belong to the network SR3 \(Unexpected key"):
        start_from(earlier, str(tmp_path / "model.pt"))


@pytest.mark.parametrize("change", [{"unet.tail.weight": None}, {"another.weight": torch.zeros(1)}])
def test_a_part_that_is_not_whole_or_not_known_is_refused(tmp_path, change):
    network = SR3(channels=(4, 4), blocks=1)
    state = {**network.state_dict(), **change}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="does not belong to the network SR3"):
        start_from(network, str(tmp_path / "model.pt"))


def test_without_a_start_the_network_stays_as_it_is(network):
    before = [value.clone() for value in network.parameters()]
    assert start_from(network, "") is network
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_weights_of_another_network_are_named(network, tmp_path):
    torch.save(VDSR(channels=8, depth=3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(BundleError, match=r"model\.pt: does not belong to the network VDSR \(size mismatch .*\)\."):
        start_from(network, str(tmp_path / "model.pt"))
    with pytest.raises(BundleError, match=r"does not belong to the bundle a \(size mismatch"):
        load_state(network, read_weights(tmp_path / "model.pt"), "they:", "the bundle a")


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 40, b"no weights at all", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_weights_is_refused(network, tmp_path, content):
    if content is not None:
        (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt: cannot be read as weights \(.+\)\. Expected a model\.pt of"):
        start_from(network, str(tmp_path / "model.pt"))


class Dangerous:
    def __reduce__(self):
        raise_if_run = "raise SystemExit('the file was executed')"
        return exec, (raise_if_run,)


def test_a_file_that_would_run_something_is_refused(tmp_path):
    torch.save({"weights": Dangerous()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"cannot be read as weights \(UnpicklingError\)"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("stored", [torch.zeros(3), [1, 2], {"minutes": 3}, {"model": "VDSR"}])
def test_a_file_of_something_else_is_refused(tmp_path, stored):
    torch.save(stored, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: holds no network's weights\. Expected a model\.pt of `monai-sr"):
        read_weights(tmp_path / "model.pt")
