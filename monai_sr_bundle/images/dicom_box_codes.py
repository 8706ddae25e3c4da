"""The names of findings as codes, and back: SNOMED CT or DICOM where there is a code, else one of our own.

DICOM's codes for findings of the chest are those of PS3.16 CID 6102 and 6104. Code Meanings are for people only (PS3.3
8.3), so a finding with a code is known by it, and comes back under the first name here.
"""

from __future__ import annotations

import hashlib

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

PRIVATE = "99MONAISR"
"""Coding scheme of findings without a code of their own, and of what only this package measures."""
PRIVATE_NAME = "monai-sr-bundle"

_FINDINGS: dict[Code, tuple[str, ...]] = {
    Code("46621007", "SCT", "Atelectasis"): ("Atelectasis",),
    Code("8186001", "SCT", "Cardiomegaly"): ("Cardiomegaly",),
    Code("60046008", "SCT", "Pleural effusion"): ("Effusion", "Pleural effusion"),
    Code("112121", "DCM", "Infiltrate"): ("Infiltrate", "Infiltration", "Pulmonary infiltrate"),
    Code("4147007", "SCT", "Mass"): ("Mass",),
    Code("27925004", "SCT", "Nodule"): ("Nodule",),
    Code("233604007", "SCT", "Pneumonia"): ("Pneumonia",),
    Code("36118008", "SCT", "Pneumothorax"): ("Pneumothorax",),
    Code("95436008", "SCT", "Pulmonary consolidation"): ("Consolidation", "Lung consolidation"),
    Code("112001", "DCM", "Opacity"): ("Opacity", "Lung opacity"),
    Code("19242006", "SCT", "Pulmonary edema"): ("Edema", "Pulmonary edema"),
    Code("1187332001", "SCT", "Adenocarcinoma"): ("Adenocarcinoma",),
}
_ALSO = {Code("409609008", "SCT", "Pulmonary infiltrate"): "Infiltrate"}
"""Codes that others write for what has another one above."""


def finding_code(label: str) -> Code:
    """The code of a finding; upper and lower case are one."""
    folded = " ".join(label.casefold().split())
    for code, names in _FINDINGS.items():
        if folded in (name.casefold() for name in names):
            return code
    # Found again by the label alone, on every machine; a Code Value holds 16 characters.
    return Code(hashlib.sha256(folded.encode()).hexdigest()[:12].upper(), PRIVATE, " ".join(label.split()))


def finding_label(code: Code) -> str:
    """The name of a finding: the first one of a code that is known (also by its old SNOMED RT), else its meaning."""
    for known, names in _FINDINGS.items():
        if code == known:
            return names[0]
    for known, name in _ALSO.items():
        if code == known:
            return name
    return code.meaning


def read_code(item: Dataset, keyword: str) -> Code | None:
    """The code in a code sequence of a content item, None where it has none."""
    sequence = item.get(keyword)
    if not sequence:
        return None
    found = sequence[0]
    value = found.get("CodeValue") or found.get("LongCodeValue") or found.get("URNCodeValue")
    scheme = found.get("CodingSchemeDesignator") or ("URN" if found.get("URNCodeValue") else "")
    return Code(str(value), str(scheme), str(found.get("CodeMeaning") or "")) if value else None
