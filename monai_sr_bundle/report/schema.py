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
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_COUNT_FROM_1: dict[str, Any] = {"type": "integer", "minimum": 1}
_NUMBER: dict[str, Any] = {"type": "number"}
_NUMBER_FROM_0: dict[str, Any] = {"type": "number", "minimum": 0}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_UNIT: dict[str, Any] = {"enum": ["HU", "grey levels"]}


def _list(items: dict[str, Any], count: int | None = None, **more: Any) -> dict[str, Any]:
    """Return the schema of a list, of exactly `count` items if that is given."""
    size = {} if count is None else {"minItems": count, "maxItems": count}
    return {"type": "array", "items": items, **size, **more}


_COUNTS = _list(_COUNT_FROM_1, 3, description="slices, rows, columns")
_UIDS = _list({"type": "string", "pattern": r"^[0-9.]{1,64}$"})


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
_FILES = _list(
    _object({"name": _NAME, "sha256": _SHA256}),
    type=["array", "null"],
    description="null when there are more than 50 files, or none; combined_sha256 then stands alone",
)
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
                    "file_count": _COUNT,
                    "combined_sha256": _COMBINED,
                    "shape_zyx": _COUNTS,
                    "dtype": _TEXT,
                    "bits": _COUNT_FROM_1,
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
                    "file_count": _COUNT,
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
                        "combined_sha256; null for interpolation, which has none",
                    },
                    "scale_zyx": _COUNTS,
                    "factor": _TEXT,
                    "operator": _TEXT,
                    "operator_words": {**_TEXT, "description": "what the operator does, for a reader"},
                    "generative": {"type": "boolean"},
                    "blind": {
                        "type": "boolean",
                        "description": "trained on many losses of resolution, whichever an image may have had",
                    },
                    "instead_of": {
                        "type": ["string", "null"],
                        "description": "model that was asked for, outside whose limits the image is; else null",
                    },
                }
            ),
            "run": _object(
                {
                    "backend": _TEXT,
                    "device": _TEXT,
                    "seed": {"type": "integer"},
                    "sampling": {"type": ["string", "null"], "description": "of a diffusion model"},
                    "strength": {"type": ["number", "null"], "description": "of noise reduction, 0 to 1"},
                    "seconds": _NUMBER_OR_NULL,
                    "command": {
                        **_TEXT,
                        "description": "as typed, with what was chosen for this image and machine; folders left out",
                    },
                    "libraries": {"type": "object", "additionalProperties": _TEXT, "required": ["python", "numpy"]},
                }
            ),
            "roi_xyxy": _list(
                _COUNT,
                4,
                type=["array", "null"],
                description="input pixels, upper edge excluded; null for the whole image",
            ),
            "consistency": _object(
                {
                    "unit": _UNIT,
                    "value_span": _NUMBER_FROM_0,
                    "good_rms": _NUMBER_FROM_0,
                    "bicubic": _DISTANCE,
                    "network": _DISTANCE,
                    "result": _DISTANCE,
                    "share": {
                        **_SHARE,
                        "description": "of the input's pixels, those compared: not where something was removed",
                    },
                },
                description="distance between the input and an image reduced to the input's size by model.operator",
            ),
            "error_bars": _object(
                {
                    "unit": _UNIT,
                    "percent": {
                        **_NUMBER,
                        "description": "of the pixels that error bars are made to hold, on average over images",
                    },
                    "undercoverage": {
                        "type": ["string", "null"],
                        "description": "sentence where they are known to hold fewer pixels of such an image; else null",
                    },
                    "mean": {**_NUMBER_FROM_0, "description": "half-width over all pixels"},
                    "largest_twentieth": {**_NUMBER_FROM_0, "description": "95 % of them are smaller"},
                    "tolerance": _NUMBER_FROM_0,
                    "window": _list(_NUMBER, 2, description="the values that are 0 and 1 inside the model"),
                    "share_above_tolerance": _SHARE,
                    "calibrated_on": _object(
                        {
                            "data": _TEXT,
                            "split": _TEXT,
                            "images": _COUNT_FROM_1,
                            "patients": _COUNT_FROM_1,
                            "operator": _TEXT,
                            "created": _TEXT,
                            "coverage": _SHARE,
                            "guaranteed_percent": {
                                **_NUMBER_OR_NULL,
                                "description": "on average over further patients; null where it is `percent`",
                            },
                            "drawn": {"type": ["string", "null"], "description": "how; null for one pass"},
                        }
                    ),
                    "files": _list(
                        _NAME, description="beside the result: the map of error bars, and the mask of those too wide"
                    ),
                },
                nullable=True,
                description="null for a bundle without error bars, or without a calibration for this draw",
            ),
            "input_range": {
                "type": "object",
                "propertyNames": {"enum": ["slice_spacing_mm", "sharpness_db", "noise_percent", "contrast_percent"]},
                "additionalProperties": _object({"value": _NUMBER_OR_NULL, "low": _NUMBER, "high": _NUMBER}),
                "description": "the input, and between which limits the model's training inputs lie; null where the "
                "image is too small to tell, or the distance of its slices unknown; empty for a model that does not "
                "state them",
            },
            "grain": _object(
                {"result": _NUMBER_FROM_0, "interpolation": _NUMBER_FROM_0},
                nullable=True,
                description="standard deviations around the smooth trend in the evenest blocks of the middle slice, in "
                "consistency.unit; null where there are too few",
            ),
            "removed": _object(
                {
                    "places": {**_COUNT, "description": "areas that do not touch"},
                    "share": {**_SHARE, "description": "of the input's pixels"},
                },
                nullable=True,
                description="what seemed to be put on the image, as letters; null for a bundle that removes nothing",
            ),
            "warnings": _list(_TEXT),
            "notes": _list(_TEXT),
            "statement": _TEXT,
        }
    ),
}
