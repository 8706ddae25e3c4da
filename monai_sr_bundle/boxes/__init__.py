"""Boxes around findings: one type, one JSON form (box.py), tables, and DICOM Structured Reports in and out."""
