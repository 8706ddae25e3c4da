"""DP-SGD: every patient's gradient is clipped, their sum gets noise, and what cannot be trained so is refused."""

import math
from collections import Counter

import pytest
import torch

pytest.importorskip("opacus", reason="federated training: opacus is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.losses.fidelity import FidelityLoss
from monai_sr_bundle.networks.runet import RUNet
from monai_sr_bundle.networks.srcnn import SRCNN
from monai_sr_bundle.training.private_step import PatientSampler, PrivateStep, collate_patients, private_training
from monai_sr_bundle.training.step import Objective, RegressionObjective
from monai_sr_bundle.training.training import open_training

from tests.networks.measured import trained_like
from tests.training.steps import run_training_steps


def small():
    torch.manual_seed(0)
    return trained_like(SRCNN(4, channels=(12, 12), kernels=(3, 3, 3)))


def batch_of(patients):
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(patients, 1, 8, 8, generator=generator),
        "label": torch.rand(patients, 1, 32, 32, generator=generator),
        "name": [f"{number}.png" for number in range(patients)],
    }


def moved(batches, *, noise_multiplier=1e-12, clip=1e3, patients_per_step=4, learning_rate=1.0):
    """Return by how much each weight changes in steps of plain gradient descent."""
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    step = PrivateStep(RegressionObjective(network, FidelityLoss()), noise_multiplier, clip, patients_per_step)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    outputs = run_training_steps(network, batches, step, optimizer)
    return {key: value - before[key] for key, value in network.state_dict().items()}, outputs


def gradient_of(batch):
    network = small()
    RegressionObjective(network, FidelityLoss())(batch["image"], batch["label"], batch)["loss"].backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def norm(tensors):
    return math.sqrt(sum(float(value.square().sum()) for value in tensors.values()))


def test_without_clipping_and_noise_it_is_the_step_of_plain_training():
    batch = batch_of(4)
    change, (output,) = moved([batch])
    for name, gradient in gradient_of(batch).items():
        torch.testing.assert_close(change[name], -gradient, rtol=1e-3, atol=1e-6)
    assert output["loss"] == pytest.approx(FidelityLoss()(small()(batch["image"]), batch["label"]).item(), rel=1e-5)


def test_no_patient_moves_the_weights_by_more_than_the_clip():
    batch, clip = batch_of(1), 0.01
    assert norm(gradient_of(batch)) > 5 * clip
    change, _ = moved([batch], clip=clip, patients_per_step=1)
    assert norm(change) == pytest.approx(clip, rel=1e-3)


def test_the_noise_is_as_stated_and_not_that_of_the_seed():
    batch, clip = batch_of(2), 1e-6
    changes = [moved([batch], noise_multiplier=1e6, clip=clip, patients_per_step=2)[0] for _ in range(2)]
    values = [torch.cat([value.ravel() for value in change.values()]) for change in changes]
    assert float(values[0].std()) == pytest.approx(1e6 * clip / 2, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack(values))[0, 1])) < 0.3


def test_a_step_without_patients_is_noise_alone():
    change, (output,) = moved([None], noise_multiplier=1.0, clip=0.5, patients_per_step=1)
    values = torch.cat([value.ravel() for value in change.values()])
    assert float(values.std()) == pytest.approx(0.5, rel=0.15)
    assert math.isnan(output["loss"])
    assert collate_patients([]) is None


class Images(torch.utils.data.Dataset):
    """Three images of one patient, and one each of seven others."""

    def __init__(self):
        self.data = [{"patient": f"{max(0, number - 2)}"} for number in range(10)]

    def __len__(self):
        return len(self.data)


def test_every_patient_takes_part_with_the_same_probability_and_one_image():
    sampler = PatientSampler(Images(), patients_per_step=2)
    assert (sampler.sample_rate, len(sampler)) == (0.25, 4)
    steps = [images for _ in range(1000) for images in sampler]
    patients = Counter(Images().data[index]["patient"] for images in steps for index in images)
    assert len(patients) == 8
    assert all(count == pytest.approx(1000, abs=150) for count in patients.values())
    assert all(sum(index < 3 for index in images) <= 1 for images in steps)
    assert {len(images) for images in steps} >= {0, 1, 2, 3, 4}


def test_batch_normalisation_other_stages_and_endless_patches_are_refused():
    with pytest.raises(InputError, match="RUNet has layers that mix the images of a batch, .* Choose another network"):
        PrivateStep(RegressionObjective(RUNet(scale=2), FidelityLoss()), 1.0, 1.0, 4)
    with pytest.raises(InputError, match="for the regression stage alone, and this stage's objective is Objective"):
        PrivateStep(Objective(small()), 1.0, 1.0, 4)

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(InputError, match="draws patients, but this stage draws patches of images without end"):
        PatientSampler(Endless(), 4)


@pytest.mark.parametrize(("noise_multiplier", "clip"), [(0.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0)])
def test_noise_or_clip_that_protects_nobody_is_refused(noise_multiplier, clip):
    with pytest.raises(InputError, match="expected numbers above 0"):
        private_training(noise_multiplier, clip)


def test_the_shipped_srcnn_is_trained_by_the_workflow(data, tmp_path):
    training = open_training(
        "chest_xray_srcnn_x4", data, tmp_path / "private", sets=["drawn"], reduce=1, batch_size=2, patch_size=8,
        validations=1, statistics_from=1, iterations=4, learning_rate=1e-3, **private_training(0.5, 0.1),
    )  # fmt: skip
    before = training.weights()
    assert training.run() == 4
    changes = {key: float((value - before[key]).abs().max()) for key, value in training.weights().items()}
    assert all(0 < changes[key] < 0.1 for key in ("extract.weight", "map.weight", "reconstruct.weight"))
    assert math.isfinite(training.validate(average=True)["psnr"])
    assert training.save().is_file()
