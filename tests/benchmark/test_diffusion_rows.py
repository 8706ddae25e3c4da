"""Diffusion models in a comparison: how they draw, what varies with the seed, and the pictures of their process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.benchmark.cases import list_items
from monai_sr_bundle.benchmark.comparison_page import page
from monai_sr_bundle.benchmark.measure import measure, require_measurable
from monai_sr_bundle.benchmark.methods import open_methods
from monai_sr_bundle.benchmark.multiply_adds import multiply_adds
from monai_sr_bundle.benchmark.paired import Paired
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.quality import evaluate
from monai_sr_bundle.benchmark.tables import as_json, markdown, seed_lines
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.engine.session import enhance
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.metrics.fidelity import PSNR
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.transforms.pairs import LoadHighResd, pair_items

from tests.benchmark.drawn_protocol import drawn_protocol
from tests.drawn_data import write_radiographs
from tests.tiny_diffusion import LATENT_BUNDLE, SR3_BUNDLE, released_diffusion
from tests.tiny_flow import released_flow


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    data = write_radiographs(tmp_path_factory.mktemp("data"), size=128, counts=(("test", 4),))
    boxes = "image,finding,x_min,y_min,x_max,y_max\ndrawn/images/test1.png,Mass,40,60,100,120\n"
    (data / "drawn" / "boxes.csv").write_text(boxes)
    return data


@pytest.fixture(scope="module")
def sr3(tmp_path_factory):
    return str(released_diffusion(tmp_path_factory.mktemp("sr3"), SR3_BUNDLE)[0])


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    return str(released_diffusion(tmp_path_factory.mktemp("latent"), LATENT_BUNDLE)[0])


def protocol(*rows: Row, **changes):
    return drawn_protocol(Row("bicubic", "Bicubic"), *rows, reduce=2, **changes)


def pair(data, index):
    item = pair_items(str(data), "CXR", "test")[index]
    high = LoadHighResd("label", window=(0, 255), reduce=2, multiple=4)(item)["label"][None]
    return Degradation("bicubic_antialias", 4)(high[0, 0].numpy()), high


def test_a_row_draws_as_it_says_and_else_as_its_bundle_says(radiographs, sr3):
    rows = Row(sr3, "one", steps=4), Row(sr3, "mean", steps=4, samples=2), Row(sr3, "ancestral", "torch", "ddpm", 4)
    comparison = measure(protocol(*rows), radiographs, limit=1, samples=0)
    low, high = pair(radiographs, 0)
    for result, options in zip(
        comparison.results[1:], ({}, {"samples": 2}, {"sampler": "ddpm", "backend": "torch"}), strict=True
    ):
        stored = enhance(np.rint(low * 255).astype(np.uint8), sr3, steps=4, **options).image.pixels[0]
        expected = float(PSNR(255)(torch.from_numpy(stored / 255).float()[None, None], high))
        assert result.figures["psnr"][0] == pytest.approx(expected, abs=1e-4)


def test_keys_tell_the_rows_of_one_bundle_apart():
    assert Row("m", "", steps=1).key != Row("m", "", samples=1).key != Row("m", "").key
    rows = Row("m", ""), Row("m", "", steps=4), Row("m", "", samples=8), Row("m", "", "torch", "ddpm", seeds=10)
    assert [row.key for row in rows] == ["m", "m+steps=4", "m+samples=8", "m@torch+sampler=ddpm+seeds=10"]
    assert Row("m", "", ceiling=True).key == "m+ceiling"


def test_a_figure_of_several_seeds_is_their_mean_and_each_is_kept(radiographs, sr3):
    result = measure(protocol(Row(sr3, "three", steps=2, seeds=3)), radiographs, limit=2, samples=0).results[1]
    assert np.asarray(result.by_seed["psnr"]).shape == (2, 3)
    np.testing.assert_allclose(np.mean(result.by_seed["psnr"], axis=1), result.figures["psnr"])
    low, high = pair(radiographs, 0)
    for seed in range(3):
        stored = enhance(np.rint(low * 255).astype(np.uint8), sr3, steps=2, seed=seed).image.pixels[0]
        expected = float(PSNR(255)(torch.from_numpy(stored / 255).float()[None, None], high))
        assert result.by_seed["psnr"][0][seed] == pytest.approx(expected, abs=1e-4)


def test_differences_are_also_tested_over_the_seeds(radiographs, sr3):
    rows = Row(sr3, "Few", steps=2, seeds=3), Row(sr3, "More", steps=4, seeds=3)
    comparison = measure(protocol(*rows, reference=rows[0].key), radiographs, limit=2, samples=0)
    few, more = (np.mean(result.by_seed["psnr"], axis=0) for result in comparison.results[1:])
    expected = Paired.of(more.tolist(), few.tolist())
    line = next(line for line in seed_lines(comparison) if "PSNR (dB)" in line)
    assert line.startswith("More against Few, PSNR (dB): ")
    assert f"{expected.difference.mean:+.2f} [" in line
    assert line.endswith(f"better with {expected.better} of 3 seeds.")
    assert "Bicubic" not in "".join(seed_lines(comparison))
    assert "Drawn with 3 seeds" in markdown(comparison)
    assert "Over the seeds of sampling" in page([comparison], "command")


def test_the_ceiling_is_what_the_autoencoder_leaves_of_the_original(radiographs, latent):
    result = measure(protocol(Row(latent, "Ceiling", ceiling=True)), radiographs, limit=1, samples=0).results[1]
    low, high = pair(radiographs, 0)
    network = load_network(find_bundle(latent))[0]
    with torch.inference_mode():
        condition = network.encode(torch.from_numpy(low)[None, None])
        expected = float(PSNR(255)(network.reconstruct(high, condition)[0], high))
    assert result.figures["psnr"][0] == pytest.approx(expected, abs=1e-4)


def test_a_ceiling_takes_no_part_in_a_ranking(radiographs, latent):
    rows = Row("nearest", "Nearest"), Row(latent, "Ceiling", ceiling=True)
    comparison = measure(protocol(*rows), radiographs, limit=2, samples=0)
    assert [result.saw_original for result in comparison.results] == [False, False, True]
    comparison.results[2].figures["psnr"] = [90.0, 91.0]
    html = page([comparison], "command")
    assert "Highest PSNR: <strong><bdi>Bicubic</bdi></strong>" in html
    assert "<strong>90.50</strong>" not in html
    assert "90.50<small>" in html
    comparison.results[2].saw_original = False
    assert "Highest PSNR: <strong><bdi>Ceiling</bdi></strong>" in page([comparison], "command")


def test_a_flow_without_texture_has_one_seed_and_no_pictures_of_its_process(tmp_path):
    flow = str(released_flow(tmp_path)[0])
    with pytest.raises(InputError, match="draws nothing. Leave seeds out of the protocol's row"):
        open_methods(protocol(Row(flow, "", seeds=2)))
    textured = Row(flow, "", texture=0.5, seeds=2)
    assert open_methods(protocol(textured))[1].row == textured
    with pytest.raises(InputError, match="is no diffusion model. Take it out of `processes`"):
        open_methods(protocol(textured, processes=(textured.key,)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("chest_xray_edsr_x4", "", seeds=2), "draws nothing. Leave seeds out"),
        (Row("chest_xray_edsr_x4", "", steps=2), "--steps: bundle chest_xray_edsr_x4 is no diffusion model"),
        (Row("chest_xray_edsr_x4", "", ceiling=True), "has no autoencoder. Leave ceiling out"),
    ],
)
def test_options_that_a_method_does_not_have_are_refused(radiographs, row, message):
    with pytest.raises(InputError, match=message):
        measure(protocol(row), radiographs, limit=1)


def test_multiply_adds_count_every_step_of_every_sample(sr3, latent):
    bundle = find_bundle(sr3)

    def work(**options):
        return multiply_adds(bundle, "16x16", Row(sr3, "", **options))

    step = work(steps=2) - work(steps=1)
    assert step > 1e5
    assert work(steps=20) == pytest.approx(work(steps=1) + 19 * step)
    assert work(steps=1, samples=2) == pytest.approx(work(steps=1) + step, rel=0.02)
    # Sizes that the network takes are those that count.
    assert multiply_adds(bundle, "15x16", Row(sr3, "")) == multiply_adds(bundle, "16x16", Row(sr3, ""))
    assert (
        0
        < multiply_adds(find_bundle(latent), "16x16", Row(latent, "", ceiling=True))
        < multiply_adds(find_bundle(latent), "16x16")
    )


def test_a_protocol_may_take_few_images_or_those_with_boxes(radiographs):
    names = [item["name"] for item in list_items(protocol(limit=2), radiographs)]
    assert names == ["test0", "test3"]
    assert len(list_items(protocol(limit=3), radiographs, 2)) == 2
    assert [item["name"] for item in list_items(protocol(only_boxes=True), radiographs)] == ["test1"]


def test_without_any_box_a_protocol_that_asks_for_them_is_refused(tmp_path):
    data = write_radiographs(tmp_path, size=64, counts=(("test", 1),))
    with pytest.raises(InputError, match="no image of the test split has a box, which protocol drawn asks for"):
        list_items(protocol(only_boxes=True), data)


def test_a_process_is_shown_from_the_image_to_the_noise_and_back(radiographs, sr3):
    row = Row(sr3, "SR3", steps=20)
    comparison = measure(protocol(row, processes=(row.key,)), radiographs, limit=1, samples=1)
    (strip,) = comparison.strips
    assert strip.label == "SR3"
    assert strip.levels == sorted(strip.levels, reverse=True)
    assert strip.levels[-1] == 0
    assert strip.levels[0] > 0.98
    # Almost without noise: the original. Noise alone: the same on both ways, for one seed.
    assert np.abs(strip.forward[0] - strip.high_res).mean() < 0.1 * np.abs(strip.forward[-1] - strip.high_res).mean()
    np.testing.assert_allclose(strip.forward[-1], strip.backward[-1], atol=1e-6)
    np.testing.assert_allclose(np.clip(strip.result, 0, 1), comparison.results[1].pictures[0], atol=1e-6)
    np.testing.assert_allclose(strip.guesses[0], strip.result, atol=1e-6)
    html = page([comparison], "command")
    assert "Step by step" in html
    assert html.count("noise being taken away") == 6
    assert "Step by step" not in page([replace(comparison, strips=[])], "command")
    assert as_json(comparison)["protocol"]["processes"] == [row.key]


def test_a_process_is_shown_of_as_much_as_needs_no_padding(latent, tmp_path):
    data = write_radiographs(tmp_path, size=88, counts=(("test", 1),))
    row = Row(latent, "Latent", steps=4)
    (strip,) = measure(protocol(row, processes=(row.key,)), data, limit=1, samples=1).strips
    assert strip.high_res.shape == strip.result.shape == (32, 32)


def test_of_a_mean_the_first_sample_is_shown_and_no_step_twice(radiographs, sr3):
    strips = []
    for samples in (1, 3):
        row = Row(sr3, "SR3", steps=4, samples=samples)
        strips += measure(protocol(row, processes=(row.key,)), radiographs, limit=1, samples=1).strips
    one, mean = strips
    assert len(one.levels) == len(set(one.levels)) == 4
    for name in ("forward", "backward", "guesses"):
        np.testing.assert_array_equal(getattr(one, name), getattr(mean, name))
    np.testing.assert_array_equal(one.result, mean.result)


def test_the_process_of_what_is_no_diffusion_model_is_refused_before_anything_is_measured(radiographs):
    for row in (Row("chest_xray_edsr_x4", "EDSR"), Row("nearest", "Nearest")):
        wrong = protocol(row, processes=(row.key,))
        with pytest.raises(InputError, match=f"protocol drawn: {row.method} is no diffusion model. Take it out"):
            require_measurable(wrong, radiographs)


def test_evaluate_draws_as_it_is_told_and_says_so(radiographs, sr3):
    evaluation = evaluate(
        sr3, radiographs, sets=["drawn"], limit=1, options=SamplerOptions(sampler="ddpm", steps=2, samples=2)
    )
    assert evaluation.header.endswith("| ddpm in 2 steps, mean of 2 samples")
    with pytest.raises(InputError, match="--steps: bundle bicubic is no diffusion model"):
        evaluate("bicubic", radiographs, sets=["drawn"], options=SamplerOptions(steps=2))
