"""TensorRT as far as it can be tested without a GPU: windows, profiles, graphs that MONAI exports, names, refusals."""

import inspect
import itertools
import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.networks.trt_compiler import TrtCompiler
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.backends.torch_networks import PartNetwork, run_network
from monai_sr_bundle.engine.tensorrt_parts import (
    check_precision,
    engine_key,
    part_arguments,
    replace_method,
    write_whole,
)
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.inferers.tiling import tiles, window_ranges
from monai_sr_bundle.shipped_bundles import all_bundles, configs_dir, find_bundle

from tests.monai_workflow import open_workflow

FAMILIES = ("chest_xray_residual_flow_x4", "chest_xray_sr3_anomaly_x4", "chest_xray_latent_diffusion_x4")
OTHERS = [bundle.name for bundle in all_bundles() if bundle.name not in FAMILIES]


class Stop(Exception):
    """Raised where TensorRT would take over."""


def inferer_and_arguments(name):
    parser = open_workflow(configs_dir() / name, "inference", "inference_trt").parser
    return parser.get_parsed_content("inferer"), parser.get_parsed_content("trt_args")


def draw_inputs(network, part, side, batch=1):
    rng = np.random.default_rng(0)
    return [
        rng.random((batch,) if channels is None else (batch, channels, side, side), dtype=np.float32)
        for channels in part.channels(network)
    ]


@pytest.mark.parametrize(
    "name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)  # fmt: skip
def test_monai_exports_every_part_with_free_rows_and_columns(name, tmp_path, monkeypatch):
    """The export is that of a GPU, up to the point where TensorRT reads the graph."""
    monkeypatch.setattr(logging.getLogger("monai.networks.trt_compiler"), "disabled", True)
    network, _ = load_network(find_bundle(name))
    inferer, trt_args = inferer_and_arguments(name)
    for part in inferer.family.parts:
        exported = tmp_path / f"{part.name}.onnx"

        def keep(compiler, path, exported=exported):
            onnx.save(onnx.load(path), exported)
            raise Stop

        monkeypatch.setattr(TrtCompiler, "_onnx_to_trt", keep)
        monkeypatch.setattr(TrtCompiler, "_load_engine", lambda compiler: None)
        kinds = part_arguments(network, part, inferer, trt_args)
        arguments, multiple = kinds["square"], part.multiple(network)
        for shapes in (shapes for each in kinds.values() for shapes in each["input_profiles"][0].values()):
            assert all(low <= usual <= high for low, usual, high in zip(*shapes, strict=True))
            assert all(side % multiple == 0 for shape in shapes for side in shape[2:])
        module = PartNetwork(network, part)
        compiler = TrtCompiler(module, str(tmp_path / "none.plan"), **arguments)
        with pytest.raises(Stop):
            run_network(
                lambda *tensors, compiler=compiler, module=module: compiler.forward(module, tensors, {}),
                draw_inputs(network, part, 16 * multiple),
                "cpu",
            )
        (profile,) = arguments["input_profiles"]
        session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
        there = {node.name: node.shape for node in session.get_inputs()}
        # Names in a profile that the graph lacks are an error of TensorRT's.
        assert set(there) == set(profile)
        for end, (smallest, _, largest) in profile.items():
            varies = [low != high for low, high in zip(smallest, largest, strict=True)]
            assert [isinstance(side, str) for side in there[end]] == varies
        inputs = draw_inputs(network, part, 20 * multiple)
        feeds = {end: array for end, array in zip(part.inputs, inputs, strict=True) if end in there}
        expected = run_network(getattr(network, part.method), inputs, "cpu")
        np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=1e-4)


@pytest.mark.parametrize(("halo", "grid"), [(24, 1), (154, 8), (60, 4), (4, 1)])
@pytest.mark.parametrize("tile", [256, 600])
def test_every_window_of_an_image_lies_in_a_profile(halo, grid, tile):
    ranges = window_ranges(tile, halo, grid, least=8)
    sides = (8, 30, 66, 151, 700, 2700)
    for rows, columns in itertools.product(sides, sides):
        rows, columns = rows + -rows % grid, columns + -columns % grid
        regions = [(0, rows, 0, columns), (rows // 3, rows // 3 + 1, columns // 2, columns)]
        for region, smaller in itertools.product(regions, (tile, 64)):
            for piece in tiles((rows, columns), region, smaller, halo, grid):
                window = piece.window.rows, piece.window.columns
                assert any(
                    all(low <= side <= high for (low, high), side in zip(each, window, strict=True))
                    for each in ranges.values()
                ), (window, ranges)


def test_windows_of_any_kind_go_to_their_engine():
    network, _ = load_network(find_bundle("chest_xray_edsr_x4"))
    inferer, trt_args = inferer_and_arguments("chest_xray_edsr_x4")
    (part,) = inferer.family.parts
    called = []

    def engine(kind):
        return lambda image: called.append(kind) or image

    arguments = part_arguments(network, part, inferer, trt_args)
    replace_method(network, part, [(each["input_profiles"][0], engine(kind)) for kind, each in arguments.items()])
    for rows, columns in ((48, 48), (304, 304), (8, 2561), (2561, 8)):
        network(torch.zeros(1, 1, rows, columns))
    assert called == ["square", "square", "wide", "tall"]
    with pytest.raises(AssertionError, match=r"window of \(500, 500\) is outside"):
        network(torch.zeros(1, 1, 500, 500))


def test_the_tile_of_the_user_is_in_the_profile():
    parser = open_workflow(configs_dir() / "chest_xray_edsr_x4", "inference", "inference_trt", tile=512).parser
    network, _ = load_network(find_bundle("chest_xray_edsr_x4"))
    inferer, trt_args = (parser.get_parsed_content(key) for key in ("inferer", "trt_args"))
    (part,) = inferer.family.parts
    smallest, _, largest = part_arguments(network, part, inferer, trt_args)["square"]["input_profiles"][0]["image"]
    assert (smallest, largest) == ([1, 1, 8, 8], [1, 1, 560, 560])


def test_the_arguments_are_ones_that_monai_takes():
    network, _ = load_network(find_bundle("chest_xray_edsr_x4"))
    inferer, trt_args = inferer_and_arguments("chest_xray_edsr_x4")
    (part,) = inferer.family.parts
    arguments = part_arguments(network, part, inferer, trt_args)["square"]
    inspect.signature(TrtCompiler.__init__).bind(None, None, "model.plan", **arguments)
    # TensorRT 11 has neither flag.
    assert arguments["precision"] == "fp32"
    assert "precision_constraints" not in arguments["build_args"]


def test_an_engine_belongs_to_one_gpu_one_tensorrt_one_set_of_weights_and_its_arguments():
    weights = [str(find_bundle(name).weights("model.pt")[0]) for name in ("chest_xray_edsr_x4", "chest_ct_edsr_x4")]
    keys = {
        engine_key(gpu, version, checkpoint, {"precision": precision})
        for gpu, version, checkpoint, precision in itertools.product(
            ("NVIDIA H100 80GB HBM3", "NVIDIA A10"), ("10.8.0", "10.16.1"), weights, ("fp32", "fp16")
        )
    }
    assert len(keys) == 16
    assert all("/" not in key and " " not in key for key in keys)


def test_half_precision_is_refused_where_tensorrt_would_not_heed_it():
    check_precision("10.16.1", "fp16")
    check_precision("11.4.0", "fp32")
    with pytest.raises(BundleError, match=r"trt_args#precision is fp16, but TensorRT 11\.4\.0 takes.*leave fp32"):
        check_precision("11.4.0", "fp16")


def test_two_processes_that_build_one_engine_leave_a_whole_one(tmp_path, monkeypatch):
    network, _ = load_network(find_bundle("chest_xray_srcnn_x4"))
    (part,) = find_bundle("chest_xray_srcnn_x4").family.parts
    plan = tmp_path / "model.plan"
    compilers = []
    for _ in range(2):
        compilers.append(TrtCompiler(PartNetwork(network, part), str(plan), export_args={"dynamo": False}))
        write_whole(compilers[-1])
    example = {"image": torch.rand(1, 1, 8, 8)}
    engines = {id(compilers[0]): b"the first, which is longer", id(compilers[1]): b"the second"}

    def build(compiler, path):
        if compiler is compilers[0]:  # another process builds it meanwhile
            compilers[1]._build_and_save(PartNetwork(network, part), example)
            assert plan.read_bytes() == b"the second"
        assert compiler.plan_path != str(plan)
        return engines[id(compiler)]

    monkeypatch.setattr(TrtCompiler, "_onnx_to_trt", build)
    compilers[0]._build_and_save(PartNetwork(network, part), example)
    assert plan.read_bytes() == b"the first, which is longer"
    assert [path.name for path in tmp_path.iterdir()] == ["model.plan"]
    assert compilers[0].plan_path == str(plan)
