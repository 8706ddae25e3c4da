"""Repairs and settings that MONAI Label 0.8.5 needs. Import this before anything of `monailabel`."""

from __future__ import annotations

import os
import sys

import pydicom.uid

# pydicom-seg 0.4.1 imports a module that pydicom 3 has renamed: MONAILabel#1841, pydicom-seg#60.
sys.modules.setdefault("pydicom._storage_sopclass_uids", pydicom.uid)
os.environ |= {
    # Each training would queue scorings, and the app would ask its own server for them: a deadlock.
    "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
    "MONAI_LABEL_SESSIONS": "false",
    "MONAI_LABEL_TASKS_BATCH_INFER": "false",
    "MONAI_LABEL_TASKS_SCORING": "false",
    # Its tokens cannot be read with the PyJWT of today (main at 058ddfc), and our guard has its own.
    "MONAI_LABEL_AUTH_ENABLE": "false",
}
