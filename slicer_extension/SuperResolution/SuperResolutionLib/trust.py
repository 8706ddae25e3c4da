"""The trust in a result, as one word and one sentence; `controller.resultText` has the details."""

from __future__ import annotations

from SuperResolutionLib.translation import _

GREEN, AMBER, RED = "green", "amber", "red"

COLORS = {GREEN: "#1e7d32", AMBER: "#b36b00", RED: "#c22f1d"}
"""Colours of the words, readable on a light ground."""


def trustOf(done: dict) -> tuple[str, str]:
    """Return `GREEN`, `AMBER` or `RED` for a result, and the most serious reason in one sentence.

    `done` is the worker's event "done", or the report of `result_nodes.reportOf`.
    """
    if (done.get("provenance") or {}).get("instead_of"):
        return RED, _("Nothing was added: the image is too unlike those the model knows, so it was only interpolated.")
    if done.get("synthetic"):
        return RED, _("The texture is generated: it is one of many that would fit, so do not diagnose from it.")
    warnings = list(done.get("warnings") or ())
    if warnings:
        return AMBER, str(warnings[0])
    coverage = done.get("coverage")
    if not coverage:
        return AMBER, _("There are no error bars: how far off a pixel may be is unknown.")
    text = _("On average over images like those of the tests, {share:.0%} of the pixels lie within their error bars.")
    return GREEN, text.format(share=coverage["promised"])
