"""Every ONNX graph of every bundle is made of operators that TensorRT publishes as supported; nothing runs on a GPU."""

import json
from pathlib import Path

import onnx
import pytest
from monai_sr_bundle.packing.onnx_export import export_bundle
from monai_sr_bundle.shipped_bundles import all_bundles

PUBLISHED = json.loads(Path(__file__).with_name("tensorrt_operators.json").read_text(encoding="utf-8"))


def unsupported(model):
    """Return the opset, operators and attributes of a graph that the published list does not hold."""
    problems = {f"opset {each.version}" for each in model.opset_import if each.version > PUBLISHED["opsets"][1]}
    problems |= {f"domain {each.domain}" for each in model.opset_import if each.domain}
    for node in model.graph.node:
        if node.op_type not in PUBLISHED["supported"]:
            problems.add(node.op_type)
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        for name, allowed in PUBLISHED["attributes"].get(node.op_type, {}).items():
            value = attributes.get(name)
            value = value.decode() if isinstance(value, bytes) else value
            if value not in allowed:
                problems.add(f"{node.op_type} with {name} {value}")
    return problems


# Bundles without ONNX files are exported first, which takes long; SR3 stands for them in every run.
EXPORTED = [bundle for bundle in all_bundles() if not list(bundle.folder.glob("*.onnx"))]
SLOW = [bundle.name for bundle in EXPORTED if bundle.name != "chest_xray_sr3_x4"]


@pytest.mark.parametrize(
    "bundle",
    [
        pytest.param(bundle, id=bundle.name, marks=pytest.mark.slow if bundle.name in SLOW else ())
        for bundle in all_bundles()
    ],
)
def test_tensorrt_supports_every_operator(bundle, tmp_path):
    files = [*bundle.folder.glob("*.onnx")]
    if not files:
        export_bundle(bundle, tmp_path)
        files = [*tmp_path.glob("*.onnx")]
    assert files
    assert {file.name: unsupported(onnx.load(file)) for file in files} == {file.name: set() for file in files}


def test_an_operator_that_is_not_on_the_list_is_found():
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, 8, 8])
    nodes = [
        onnx.helper.make_node("Resize", ["image", "", "scales"], ["large"], mode="cubic"),
        onnx.helper.make_node("Det", ["large"], ["pred"]),
    ]
    graph = onnx.helper.make_graph(nodes, "graph", [image], [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    assert unsupported(model) == {
        "Det", "Resize with mode cubic", "Resize with coordinate_transformation_mode None"
    }  # fmt: skip
