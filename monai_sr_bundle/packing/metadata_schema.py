"""A stand-in for the model zoo's schema of `metadata.json` (draft 2019-09), for a check without a connection.

The rules of meta_schema_20240725 in our words, because the zoo's file is not ours to ship. The file itself is at
https://project-monai.github.io/schema/meta_schema_20240725.json; `python -m monai.bundle verify_metadata` gets it.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_TENSOR_KEYS = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")


def _tensor() -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(_TENSOR_KEYS),
        "properties": {
            "type": _TEXT,
            "format": _TEXT,
            "num_channels": {"type": "integer", "minimum": 1},
            "spatial_shape": {"type": "array", "minItems": 1, "items": {"type": ["string", "integer"]}},
            "dtype": _TEXT,
            "value_range": {"type": "array", "items": {"type": "number"}},
            "is_patch_data": {"type": "boolean"},
            "channel_def": {
                "type": "object",
                "patternProperties": {"^[0-9]+$": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    }


def _network_io() -> dict[str, Any]:
    argument = {"anyOf": [{"type": ["number", "string", "boolean"]}, _tensor()]}
    arguments = {"type": "object", "minProperties": 1, "additionalProperties": argument}
    return {
        "type": "object",
        "required": ["inputs", "outputs"],
        "properties": {"inputs": arguments, "outputs": arguments, "post_processed_outputs": arguments},
    }


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
    ],
    "properties": {
        **dict.fromkeys(("schema", "monai_version", "pytorch_version", "numpy_version"), _TEXT),
        **dict.fromkeys(("task", "description", "authors", "copyright", "name"), _TEXT),
        "version": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "required_packages_version": {"type": "object", "additionalProperties": _TEXT},
        **{key: {"type": "object"} for key in ("supported_apps", "eval_metrics")},
        **{key: {"type": "string"} for key in ("data_source", "data_type", "image_classes", "label_classes")},
        **{key: {"type": "string"} for key in ("pred_classes", "intended_use")},
        "references": {"type": "array", "items": {"type": "string"}},
        "weights_sha256": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        "network_data_format": _network_io(),
    },
    "patternProperties": {"^[_a-zA-Z0-9]+_data_format$": _network_io()},
}
