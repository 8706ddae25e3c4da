"""Content tree of a DICOM Structured Report, as far as boxes need it: items, their names and their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code


def read_code(item: Dataset, keyword: str) -> Code | None:
    """Return the code in a code sequence of a content item; None where it has none."""
    for coded in item.get(keyword) or ():
        value = coded.get("CodeValue") or coded.get("LongCodeValue") or coded.get("URNCodeValue")
        scheme = coded.get("CodingSchemeDesignator") or ("URN" if coded.get("URNCodeValue") else "")
        return Code(str(value), str(scheme), str(coded.get("CodeMeaning") or "")) if value else None
    return None


def children(item: Dataset) -> list[Dataset]:
    """Return the content items directly below one."""
    return list(item.get("ContentSequence") or ())


def walk(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item below one, depth first."""
    for child in children(item):
        yield child
        yield from walk(child)


def coded_name(item: Dataset) -> Code | None:
    """Return the concept name of a content item."""
    return read_code(item, "ConceptNameCodeSequence")


def items_named(items: Sequence[Dataset], name: Code) -> list[Dataset]:
    """Return the items that have one concept name."""
    return [item for item in items if is_code(coded_name(item), name)]


def is_code(code: Code | None, *expected: Code) -> bool:
    """Check whether a code is one of some; pydicom's own comparison fails for None."""
    return code is not None and any(code == each for each in expected)


def child_codes(item: Dataset) -> dict[str, Code]:
    """Return the coded values below an item, by the code value of their names."""
    codes = {}
    for child in children(item):
        name, value = coded_name(child), read_code(child, "ConceptCodeSequence")
        if name and value:
            codes[name.value] = value
    return codes


def measured_value(item: Dataset) -> float | None:
    """Return the value of a NUM item; None where it has none or is of another type."""
    for measured in item.get("MeasuredValueSequence") or ():
        value = measured.get("FloatingPointValue")
        value = measured.get("NumericValue") if value is None else value
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            return None
    return None


def item_text(item: Dataset) -> str:
    """Return the text of a TEXT or PNAME item in one line; of a name its alphabetic part, without empty ends."""
    if item.get("ValueType") == "PNAME":
        return str(item.get("PersonName") or "").split("=")[0].rstrip("^").strip()
    return " ".join(str(item.get("TextValue") or "").split())
