"""Damaged and odd files for every reader: seeds, mutations, a judge, and a command that runs for minutes."""
