"""The JSON Schema (draft 2019-09) of report.json, for the programs that read it.

A new key leaves `SCHEMA_VERSION` alone; a key that changes its meaning or is removed raises it.
"""

from __future__ import annotations

from typing import Any

SCHEMA = "monai-sr-report"
SCHEMA_VERSION = 1

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_NUMBER_OR_NULL: dict[str, Any] = {"type": ["number", "null"]}
_POSITIVE_OR_NULL: dict[str, Any] = {"type": ["number", "null"], "exclusiveMinimum": 0}
_SHA256: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SHA256_OR_NULL: dict[str, Any] = {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}
_NAME: dict[str, Any] = {"type": "string", "minLength": 1, "pattern": r"^[^/\\]*$", "description": "no folders"}
_COUNTS: dict[str, Any] = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1},
    "minItems": 3,
    "maxItems": 3,
    "description": "slices, rows, columns",
}
_UIDS: dict[str, Any] = {"type": "array", "items": {"type": "string", "pattern": r"^[0-9.]{1,64}$"}}


def _object(properties: dict[str, Any], nullable: bool = False, **more: Any) -> dict[str, Any]:
    """Return the schema of an object with exactly these keys."""
    return {
        "type": ["object", "null"] if nullable else "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


_SPACING = _object(
    {"between_rows": _POSITIVE_OR_NULL, "between_columns": _POSITIVE_OR_NULL, "between_slices": _POSITIVE_OR_NULL},
    nullable=True,
    description="millimetres; null where the spacing in the patient or detector plane is unknown",
)
_FILES: dict[str, Any] = {
    "type": ["array", "null"],
    "items": _object({"name": _NAME, "sha256": _SHA256}),
    "description": "null when there are more than 50 files, or none; combined_sha256 then stands alone",
}
_COMBINED = {
    **_SHA256_OR_NULL,
    "description": "sha256 of the lines 'SHA256  NAME' of all files, by name: LC_ALL=C sha256sum * | sha256sum",
}
_DISTANCE = _object({"rms": _NUMBER_OR_NULL, "maximum": _NUMBER_OR_NULL}, nullable=True)

REPORT_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "title": "Report of one super-resolved image",
    **_object(
        {
            "schema": {"const": SCHEMA},
            "schema_version": {"const": SCHEMA_VERSION},
            "made_by": _object({"name": _TEXT, "version": _TEXT}),
            "created": {**_TEXT, "description": "ISO 8601, local time with offset"},
            "source": _object(
                {
                    "name": _NAME,
                    "format": {"enum": ["dicom", "nifti", "png", "jpeg", "tiff", "array"]},
                    "files": _FILES,
                    "file_count": {"type": "integer", "minimum": 0},
                    "combined_sha256": _COMBINED,
                    "shape_zyx": _COUNTS,
                    "dtype": _TEXT,
                    "bits": {"type": "integer", "minimum": 1},
                    "modality": {"enum": ["CXR", "CT", "unknown"]},
                    "spacing_mm": _SPACING,
                    "spacing_source": _TEXT,
                    "photometric": {"enum": ["MONOCHROME1", "MONOCHROME2"]},
                    "dicom": _object(
                        {"study_uids": _UIDS, "series_uids": _UIDS, "sop_instance_uids": _UIDS}, nullable=True
                    ),
                }
            ),
            "output": _object(
                {
                    "name": {**_NAME, "type": ["string", "null"]},
                    "files": _FILES,
                    "file_count": {"type": "integer", "minimum": 0},
                    "combined_sha256": _COMBINED,
                    "shape_zyx": _COUNTS,
                    "spacing_mm": _SPACING,
                }
            ),
            "model": _object(
                {
                    "name": _TEXT,
                    "version": _TEXT,
                    "manufacturer": {"type": "string"},
                    "weights_sha256": {
                        **_SHA256_OR_NULL,
                        "description": "of the file; of several (the ONNX files of a diffusion model) as "
                        "combined_sha256; null without weights",
                    },
                    "scale_zyx": _COUNTS,
                    "factor": _TEXT,
                    "operator": _TEXT,
                    "operator_words": {**_TEXT, "description": "what the operator does, for a reader"},
                    "generative": {"type": "boolean"},
                }
            ),
            "run": _object(
                {
                    "backend": _TEXT,
                    "device": _TEXT,
                    "seed": {"type": "integer"},
                    "sampling": {"type": ["string", "null"], "description": "of a diffusion model"},
                    "seconds": _NUMBER_OR_NULL,
                    "command": {**_TEXT, "description": "as typed, folders left out"},
                    "libraries": {"type": "object", "additionalProperties": _TEXT, "required": ["python", "numpy"]},
                }
            ),
            "roi_xyxy": {
                "type": ["array", "null"],
                "items": {"type": "integer", "minimum": 0},
                "minItems": 4,
                "maxItems": 4,
                "description": "input pixels, upper edge excluded; null for the whole image",
            },
            "consistency": _object(
                {
                    "unit": {"enum": ["HU", "grey levels"]},
                    "value_span": {"type": "number", "minimum": 0},
                    "good_rms": {"type": "number", "minimum": 0},
                    "bicubic": _DISTANCE,
                    "network": _DISTANCE,
                    "result": _DISTANCE,
                    "share": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": 1,
                        "description": "of the input's pixels, those compared: not where something was removed",
                    },
                },
                description="distance between the input and an image reduced to the input's size by model.operator",
            ),
            "error_bars": _object(
                {
                    "unit": {"enum": ["HU", "grey levels"]},
                    "percent": {
                        "type": "number",
                        "description": "of the pixels that are promised to be within their error bars",
                    },
                    "mean": {"type": "number", "minimum": 0, "description": "half-width over all pixels"},
                    "largest_twentieth": {"type": "number", "minimum": 0, "description": "95 % of them are smaller"},
                    "tolerance": {"type": "number", "minimum": 0},
                    "window": {
                        "type": "array",
                        "items": {"type": "number"},
                        "minItems": 2,
                        "maxItems": 2,
                        "description": "the values that are 0 and 1 inside the model",
                    },
                    "share_above_tolerance": {"type": "number", "minimum": 0, "maximum": 1},
                    "calibrated_on": _object(
                        {
                            "data": _TEXT,
                            "split": _TEXT,
                            "images": {"type": "integer", "minimum": 1},
                            "patients": {"type": "integer", "minimum": 1},
                            "operator": _TEXT,
                            "created": _TEXT,
                            "coverage": {"type": "number", "minimum": 0, "maximum": 1},
                            "drawn": {"type": ["string", "null"], "description": "how; null for one pass"},
                        }
                    ),
                    "files": {
                        "type": "array",
                        "items": _NAME,
                        "description": "beside the result: the map of error bars, and the mask of those too wide",
                    },
                },
                nullable=True,
                description="null for a bundle without error bars, or without a calibration for this draw",
            ),
            "input_range": {
                "type": "object",
                "propertyNames": {"enum": ["spacing_mm", "slice_spacing_mm", "sharpness_db", "noise_percent"]},
                "additionalProperties": _object(
                    {"value": _NUMBER_OR_NULL, "low": {"type": "number"}, "high": {"type": "number"}}
                ),
                "description": "the input, and between which limits the model's training inputs lie; null where the "
                "spacing is unknown or the image too small to tell; empty for a model that does not state them",
            },
            "removed": _object(
                {
                    "places": {"type": "integer", "minimum": 0, "description": "areas that do not touch"},
                    "share": {"type": "number", "minimum": 0, "maximum": 1, "description": "of the input's pixels"},
                },
                nullable=True,
                description="what seemed to be put on the image, as letters; null for a bundle that removes nothing",
            ),
            "warnings": {"type": "array", "items": _TEXT},
            "notes": {"type": "array", "items": _TEXT},
            "statement": _TEXT,
        }
    ),
}
