"""Hypothesis strategies for values that stand in the files which readers read."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "A1", "1\\2", "1e400", "nan", "-0", "007.812500e-01", "9" * 400, "A" * 5000, "a\nb\x1b[31m"]),
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1e-320]))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
"""Any value of JSON, and the infinities that Python's reader of it takes."""


@st.composite
def dicom_values(draw: st.DrawFn) -> tuple[str, bytes]:
    """A value representation and bytes for it; the bytes are right for it, or of another one."""
    forms = {"US": "H", "SS": "h", "UL": "I", "FD": "d", "DS": "", "IS": "", "CS": "", "LO": ""}
    representation, form = draw(st.sampled_from(sorted(forms.items())))
    if form:
        elements: st.SearchStrategy[Any] = st.floats() if form == "d" else st.integers(*_limits(form))
        values = draw(st.lists(elements, max_size=3))
        value = struct.pack(f"<{len(values)}{form}", *values)
    else:
        value = "\\".join(draw(st.lists(st.one_of(texts, numbers.map(str)), max_size=4))).encode("utf-8", "replace")
    value = draw(st.one_of(st.just(value), st.binary(max_size=12)))[:60_000]
    return representation, value + b" " * (len(value) % 2)


def _limits(form: str) -> tuple[int, int]:
    size = 8 * struct.calcsize(form)
    return (0, 2**size - 1) if form.isupper() else (-(2 ** (size - 1)), 2 ** (size - 1) - 1)
