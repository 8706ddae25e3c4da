"""Comma-separated tables: read rows with their line numbers, check columns and numbers, and write rows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_sr_bundle.errors import InputError


def read_table(path: Path, columns: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a CSV file with a header line.

    Args:
        path: CSV file in UTF-8, with or without byte order mark.
        columns: column names that the header must hold; a table may hold more.

    Returns:
        ``(line, cells)`` per row; names and cells are stripped, columns without a name (trailing commas) are left out.

    Raises:
        InputError: the file cannot be read as text, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = [(name, name.strip()) for name in reader.fieldnames or () if name.strip()]
            missing = [name for name in columns if name not in {stripped for _, stripped in names}]
            if missing:
                header = ", ".join(stripped for _, stripped in names) or "nothing"
                raise InputError(
                    f"{path}: column {', '.join(missing)} is missing; the header holds {header}. "
                    "Use the table as it was published."
                )
            return [
                (reader.line_num, {stripped: (row[name] or "").strip() for name, stripped in names}) for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a comma-separated table ({error}). Copy it again.") from error


def number(text: str, *, path: Path, line: int, column: str, above: float = -math.inf) -> float:
    """Return the finite number in a cell; raise an InputError that names the cell if it is not above `above`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= above:
        expected = "a number" if above == -math.inf else f"a number above {above:g}"
        raise InputError(f"{path}, line {line}: {column} is {text!r}, expected {expected}. Correct the cell.")
    return value


def format_csv(columns: Iterable[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    """Return the bytes of a CSV file with a header line and these columns of the rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
