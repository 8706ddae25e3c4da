"""Learning to remove noise: targets, losses, and patches that teach what whole images need."""

import numpy as np
import pytest
import torch
from monai_sr_bundle.engine.monai_inferer import TiledInferer
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.processes import DiffusionProcess
from monai_sr_bundle.networks.latent_diffusion import LatentDiffusion
from monai_sr_bundle.networks.sr3 import SR3
from monai_sr_bundle.training.generative_step import LEVELS, DiffusionObjective, DiffusionValidation, Noising, box_error

from tests.networks.measured import trained_like
from tests.training.steps import run_training_steps, run_validation_steps

SIZE = {"channels": (8, 8), "blocks": 1, "residual_std": 0.1}
FACTS = {"training_steps": 100, "sampler": "ddim", "steps": 2}
SHORT = {"schedule": "linear", "training_steps": 50, "zero_terminal_snr": False}


def noising(prediction="v_prediction", **facts):
    return Noising(DiffusionProcess.of({**SHORT, **facts, "prediction": prediction}))


def small(**options):
    torch.manual_seed(0)
    return SR3(**{**SIZE, **options})


def batch_of(count=2, side=8, seed=1, mask=False):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 1, side, side, generator=generator)
    high = torch.rand(count, 1, 4 * side, 4 * side, generator=generator)
    return {"image": image, "label": high} | ({"mask": torch.zeros_like(high)} if mask else {})


def cells(seed, count=3):
    return torch.randn(count, 4, 6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LEVEL = torch.tensor([0.2, 0.6, 0.95], dtype=torch.float64)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_target_leads_diffusers_scheduler_to_the_clean_cells(prediction):
    """Whatever the network is to predict, the sampler's one step to the end makes the clean cells of it."""
    process = DiffusionProcess.of({**SHORT, "prediction": prediction})
    scheduler = process.scheduler()
    step = scheduler.timesteps[20]
    level = scheduler.alphas_cumprod[step].sqrt().expand(1)
    clean, noise = cells(0, 1).float(), cells(1, 1).float()
    target = Noising(process).target(clean, noise, level)
    noisy = Noising(process).add_noise(clean, noise, level)
    predicted_clean = scheduler.step(target, step, noisy).pred_original_sample
    torch.testing.assert_close(predicted_clean, clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(Noising(process).predict_clean(noisy, target, level), clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("prediction", "recover", "weight"),
    [
        ("epsilon", lambda x_t, pred, a: (x_t - (1 - a).sqrt() * pred) / a.sqrt(), lambda a: a / (1 - a)),
        ("v_prediction", lambda x_t, pred, a: a.sqrt() * x_t - (1 - a).sqrt() * pred, lambda a: 1 / (1 - a)),
        ("sample", lambda x_t, pred, a: pred, torch.ones_like),
    ],
)
def test_the_error_in_a_box_is_that_of_the_clean_cells_weighted_by_what_the_docstring_says(prediction, recover, weight):
    clean, noise, predicted = cells(0), cells(1), cells(2)
    ours = noising(prediction)
    target, noisy = ours.target(clean, noise, LEVEL), ours.add_noise(clean, noise, LEVEL)
    mask = torch.zeros(1, 4, 6, 8, dtype=torch.float64)
    mask[..., 2:5, 1:7] = 1.0
    for index, a in enumerate(LEVEL.square()):
        recovered = recover(noisy[index], predicted[index], a)
        of_clean = box_error(recovered - clean[index : index + 1], mask)
        error = box_error(predicted[index] - target[index : index + 1], mask)
        torch.testing.assert_close(error, weight(a) * of_clean)


def test_drawn_levels_lie_between_neighbouring_steps_and_cover_all_of_them_alike():
    ours = noising(training_steps=5, beta_start=0.1, beta_end=0.4)
    assert ours.levels[0] == 1.0
    assert len(ours.levels) == 6
    torch.manual_seed(0)
    levels = ours.draw_levels(5000)
    falling = ours.levels.flip(0)
    assert falling[0] <= levels.min()
    assert levels.max() <= 1.0
    interval_of = torch.bucketize(levels, falling).clamp(1, 5)
    low, high = falling[interval_of - 1], falling[interval_of]
    part = (levels - low) / (high - low)
    for interval in range(1, 6):
        inside = part[interval_of == interval]
        assert len(inside) == pytest.approx(1000, abs=120)
        assert inside.mean() == pytest.approx(0.5, abs=0.05)
        assert inside.std() == pytest.approx(12**-0.5, abs=0.03)


def test_levels_of_a_validation_are_in_the_middle_of_equal_parts():
    ours = noising(training_steps=80)
    even = ours.even_levels()
    assert len(even) == LEVELS
    torch.testing.assert_close(even, ours.levels[torch.arange(6, 80, 10)])


def test_decoded_images_are_compared_where_there_is_little_noise():
    network = trained_like(small())
    compared = []

    class Distance(torch.nn.Module):
        def forward(self, pred, target):
            compared.append((pred, target))
            return (pred - target).abs().mean()

    step = DiffusionObjective(network, FACTS, features=Distance(), feature_weight=0.5)
    levels = torch.tensor([0.1, 0.97, 0.99, 0.3])
    step.noising.draw_levels = lambda count: levels[:count]
    batch = batch_of(4)
    before = network.unet.tail.weight.detach().clone()
    (output,) = run_training_steps(network, [batch], step, torch.optim.SGD(network.parameters(), lr=0.1))
    ((pred, target),) = compared
    torch.testing.assert_close(target, batch["label"][1:3])
    assert pred.shape == target.shape
    assert output["feature"] == pytest.approx(0.5 * (pred - target).abs().mean().item())
    assert output["loss"] == pytest.approx(output["noise"] + output["feature"], rel=1e-5)
    assert not torch.equal(network.unet.tail.weight, before)

    step.noising.draw_levels = lambda count: torch.full((count,), 0.1)
    (output,) = run_training_steps(network, [batch], step, torch.optim.SGD(network.parameters(), lr=0.1))
    assert "feature" not in output
    assert len(compared) == 1


def test_the_loss_is_the_weighted_sum_of_its_parts():
    network = trained_like(small(bottleneck=4))
    batch = batch_of(mask=True)
    batch["mask"][0, :, 4:9, 10:20] = 1.0

    def parts(**weights):
        return run_training_steps(network, [batch], DiffusionObjective(network, FACTS, **weights))[0]

    plain = parts(box_weight=1.0, bottleneck_weight=1.0, divergence_weight=1.0)
    assert min(plain[name] for name in ("noise", "box", "bottleneck", "divergence")) > 0
    weighted = parts(noise_weight=2.0, box_weight=0.5, bottleneck_weight=0.3, divergence_weight=0.1)
    for name, weight in (("noise", 2.0), ("box", 0.5), ("bottleneck", 0.3), ("divergence", 0.1)):
        assert weighted[name] == pytest.approx(weight * plain[name], rel=1e-4)
    expected = sum(weighted[name] for name in ("noise", "box", "bottleneck", "divergence"))
    assert weighted["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_noise_part_is_the_mean_error_of_the_prediction():
    """An untrained network predicts almost nothing, so its error is what is asked."""
    network = small()
    batch = batch_of(16)
    batch["label"] = network.enlarge(batch["image"])  # nothing is lacking: v is the noise times its level
    outputs = {
        error: run_training_steps(network, [batch], DiffusionObjective(network, FACTS, error))[0]
        for error in ("l1", "l2")
    }
    torch.manual_seed(5)
    ours = Noising(DiffusionProcess.of(FACTS))
    levels = ours.draw_levels(16)
    target = levels[:, None, None, None] * torch.randn(16, 16, 8, 8)
    assert outputs["l1"]["noise"] == pytest.approx(float(target.abs().mean()), rel=1e-2)
    assert outputs["l2"]["noise"] == pytest.approx(float(target.square().mean()), rel=1e-2)
    assert outputs["l1"].keys() == {"image", "label", "loss", "noise"}


def test_images_without_boxes_have_no_box_part():
    network = trained_like(small())
    with_box, without = batch_of(1, seed=1, mask=True), batch_of(1, seed=2, mask=True)
    with_box["mask"][..., 8:20, 8:20] = 1.0
    step = DiffusionObjective(network, FACTS, box_weight=1.0)
    assert run_training_steps(network, [without], step)[0]["box"] == 0.0
    assert run_training_steps(network, [with_box], step)[0]["box"] > 0
    del without["mask"]
    with pytest.raises(KeyError, match="mask"):
        run_training_steps(network, [without], step)


def test_a_checkpoint_of_another_process_is_refused_at_the_first_step():
    network = small()
    step = DiffusionObjective(network, FACTS)
    network.process.copy_(
        torch.from_numpy(DiffusionProcess(training_steps=300).fingerprint())
    )  # as a resumed run loads it
    with pytest.raises(BundleError, match="trained to predict v_prediction in 300 steps"):
        run_training_steps(network, [batch_of()], step)


def test_the_box_part_is_the_error_of_the_cells_of_the_boxes_alone():
    network = trained_like(small())
    batch = batch_of(mask=True)
    batch["mask"][:] = 1.0
    both = run_training_steps(network, [batch], DiffusionObjective(network, FACTS, box_weight=1.0))[0]
    assert both["box"] == pytest.approx(both["noise"], rel=1e-5)
    batch["mask"][..., 16:] = 0.0
    half = run_training_steps(network, [batch], DiffusionObjective(network, FACTS, box_weight=1.0))[0]
    batch["mask"] = 1.0 - batch["mask"]
    other = run_training_steps(network, [batch], DiffusionObjective(network, FACTS, box_weight=1.0))[0]
    assert half["box"] != pytest.approx(other["box"], rel=1e-3)
    assert (half["box"] + other["box"]) / 2 == pytest.approx(both["noise"], rel=1e-5)


def test_a_few_images_are_learned():
    network = small()
    batch = batch_of(4)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = [
        output["loss"]
        for output in run_training_steps(network, [batch] * 150, DiffusionObjective(network, FACTS), optimizer)
    ]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_the_first_condition_too_is_divided_by_the_spread_of_the_latents():
    network = LatentDiffusion(autoencoder_channels=(8, 8, 8), channels=(8, 8), blocks=1)
    conditions = []
    whole = network.predict
    network.predict = lambda noisy, condition, level: conditions.append(condition) or whole(noisy, condition, level)
    batch = batch_of(2, 16)
    run_training_steps(
        network, [batch], DiffusionObjective(network, FACTS), torch.optim.SGD(network.parameters(), lr=0.0)
    )
    assert network.latent_std > 0
    torch.testing.assert_close(conditions[0], network.encode(batch["image"]).detach())


def test_a_network_of_another_process_is_refused_and_keeps_its_own():
    network = small()
    DiffusionObjective(network, {**FACTS, "prediction": "sample"})
    with pytest.raises(BundleError, match="trained to predict sample in 100 steps .* model.yaml states v_prediction"):
        DiffusionObjective(network, FACTS)
    np.testing.assert_array_equal(
        network.process.numpy(), DiffusionProcess.of({**FACTS, "prediction": "sample"}).fingerprint()
    )


def test_a_step_with_another_error_is_refused():
    network = small()
    with pytest.raises(ValueError, match="error is 'huber', expected 'l1' or 'l2'"):
        DiffusionObjective(network, FACTS, error="huber")
    assert not network.process.any()


def validated(network, batches, error="l2"):
    diffusion = {**FACTS, "samples": 1}
    inferer = TiledInferer(
        "diffusion", 4, network.receptive_radius, 1000, "area_x4", grid=network.grid, diffusion=diffusion
    )
    return run_validation_steps(network, batches, DiffusionValidation(FACTS, error), inferer)


def test_two_validations_differ_by_the_weights_alone():
    network = trained_like(small())
    DiffusionObjective(network, FACTS)
    batches = [batch_of(1, seed=1), batch_of(1, seed=2)]
    first = [float(output["loss"]) for output in validated(network, batches)]
    torch.manual_seed(77)
    network.train()
    assert [float(output["loss"]) for output in validated(network, batches)] == first
    assert first[0] != first[1]
    with torch.no_grad():
        network.unet.tail.weight.mul_(1.1)
    assert float(validated(network, batches)[0]["loss"]) != first[0]


def test_the_loss_of_a_validation_is_the_mean_over_even_levels():
    """The target of a network that predicts nothing, where nothing is lacking, is the noise times its level."""
    network = small()
    torch.nn.init.zeros_(network.unet.tail.weight)
    DiffusionObjective(network, FACTS)
    batch = batch_of(1, 32)
    batch["label"] = network.enlarge(batch["image"])
    level = Noising(DiffusionProcess.of(FACTS)).even_levels()
    (squared,), (absolute,) = (validated(network, [batch], error) for error in ("l2", "l1"))
    assert float(squared["loss"]) == pytest.approx(float(level.square().mean()), rel=0.02)
    assert float(absolute["loss"]) == pytest.approx(float(level.mean()) * (2 / np.pi) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [(16, 16), (20, 23)])
@pytest.mark.parametrize("kind", ["sr3", "latent diffusion"])
def test_a_validation_draws_images_of_any_size(kind, size):
    if kind == "sr3":
        network = small()
    else:
        network = LatentDiffusion(autoencoder_channels=(8, 8, 8), channels=(8, 8), blocks=1)
        network.latent_std.fill_(1.0)
    DiffusionObjective(network, FACTS)
    rows, columns = size
    batch = {"image": torch.rand(1, 1, rows, columns), "label": torch.rand(1, 1, 4 * rows, 4 * columns)}
    (output,) = validated(network, [batch])
    assert output["pred"].shape == batch["label"].shape
    assert torch.isfinite(output["loss"])
