"""Names of findings as codes, and back: SNOMED CT or DICOM where there is a code, else one of our own.

DICOM's codes for findings of the chest are those of PS3.16 CID 6102 and 6104. Code Meanings are for people only (PS3.3
8.3), so a finding with a code is recognised by it, and comes back under the first name here.
"""

from __future__ import annotations

import hashlib

from monai_sr_bundle.boxes.box import LONGEST_TEXT, FindingCode
from pydicom.sr.coding import Code

PRIVATE = "99MONAISR"
"""Coding scheme of findings without a code of their own, and of measurements that only this package makes."""
PRIVATE_NAME = "monai-sr-bundle"
PUBLIC = ("SCT", "RADLEX", "DCM")
"""Coding schemes whose codes a box keeps: SNOMED CT, RadLex and DICOM."""

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
_SYNONYMS = {Code("409609008", "SCT", "Pulmonary infiltrate"): "Infiltrate"}
"""Codes that other producers write for a finding that has another code above."""


def finding_code(finding: str) -> Code:
    """Return the code of a finding; upper and lower case are one. A finding without one gets a private code."""
    folded = " ".join(finding.casefold().split())
    for code, names in _FINDINGS.items():
        if folded in (name.casefold() for name in names):
            return code
    # Computed from the name alone, so it is the same on every machine. A Code Value holds 16 characters.
    return Code(hashlib.sha256(folded.encode()).hexdigest()[:12].upper(), PRIVATE, " ".join(finding.split()))


def finding_name(code: Code) -> str:
    """Return the name of a finding: the first one of a known code (also in old SNOMED RT), else the code's meaning."""
    first_names = {known_code: names[0] for known_code, names in _FINDINGS.items()} | _SYNONYMS
    return next((name for known_code, name in first_names.items() if code == known_code), code.meaning)


def public_codes(finding: str) -> tuple[FindingCode, ...]:
    """Return the public code of a finding, for JSON; nothing where it has none."""
    code = finding_code(finding)
    return () if code.scheme_designator == PRIVATE else (FindingCode(code.value, code.scheme_designator, code.meaning),)


def unnamed_codes(finding: str, code: Code) -> tuple[FindingCode, ...]:
    """Return the code of a report's finding where it is public and the finding's name does not imply it."""
    implied = finding_code(finding).scheme_designator != PRIVATE
    if implied or not finding or code.scheme_designator not in PUBLIC or len(code.value) > LONGEST_TEXT:
        return ()
    return (FindingCode(code.value, code.scheme_designator, finding),)
