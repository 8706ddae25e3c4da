"""The content tree of a DICOM Structured Report, as far as boxes need it: items, their names and their values."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from monai_sr_bundle.images.dicom_box_codes import read_code


def children(item: Dataset) -> list[Dataset]:
    """The content items below one; none where it has none."""
    return list(item.get("ContentSequence") or ())


def coded_name(item: Dataset) -> Code | None:
    """The concept name of a content item."""
    return read_code(item, "ConceptNameCodeSequence")


def named(items: Sequence[Dataset], name: Code) -> list[Dataset]:
    """The items of one concept name."""
    return [item for item in items if is_code(coded_name(item), name)]


def is_code(code: Code | None, *expected: Code) -> bool:
    """Whether a code is one of some; pydicom's own comparison fails where there is none."""
    return code is not None and any(code == each for each in expected)


def child_codes(item: Dataset) -> dict[str, Code]:
    """The coded values below an item, by the code value of their names."""
    found = {}
    for child in children(item):
        name, value = coded_name(child), read_code(child, "ConceptCodeSequence")
        if name and value:
            found[name.value] = value
    return found


def number_of(item: Dataset) -> float | None:
    """The value of a NUM item, None where it has none or is of another type."""
    for measured in item.get("MeasuredValueSequence") or ():
        value = measured.get("FloatingPointValue")
        value = measured.get("NumericValue") if value is None else value
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            return None
    return None


def text_of(item: Dataset) -> str:
    """The text of a TEXT or PNAME item; of a name its alphabetic part, without empty components at the end."""
    if item.get("ValueType") == "PNAME":
        return str(item.get("PersonName") or "").split("=")[0].rstrip("^").strip()
    return str(item.get("TextValue") or "").strip()
