"""Damaged and odd files for every reader."""
