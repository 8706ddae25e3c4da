"""Boxes to and from the formats of others, one format one file."""
