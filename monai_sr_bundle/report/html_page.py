"""The report as a page for people: plain HTML that needs no network, no script and no second file.

Everything from outside passes through `_text` on its way into the page, and the page's own policy forbids it scripts
and connections, should a string ever slip through.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from monai_sr_bundle.images.input_range import LEAST_SIDE, MAY_NOT_HOLD, NAMES, Compared, too_small
from monai_sr_bundle.inferers.artifact_removal import percent
from monai_sr_bundle.report.error_pictures import DARK, LIGHT, MARK, Pictures
from monai_sr_bundle.report.preview import interpolation, number
from monai_sr_bundle.uncertainty.error_bars import TOLERATED


def page(
    report: Mapping[str, Any], picture: bytes, error_pictures: Pictures | None = None, removed_picture: bytes = b""
) -> str:
    """The whole page.

    Args:
        report: as `report_schema.REPORT_SCHEMA` describes it.
        picture: a PNG to put inside, or nothing for a page without a picture.
        error_pictures: of the error bars.
        removed_picture: a PNG of where something was removed, or nothing.
    """
    title = f"Super-resolution {report['model']['factor']} of {report['source']['name']}"
    warnings = "".join(f"<li>{_text(warning)}</li>" for warning in report["warnings"])
    if warnings:
        warnings = f'<h2 id="w">Please note</h2><ul>{warnings}</ul>'
        warnings = f'<section class="warnings" aria-labelledby="w">{warnings}</section>'
    notes = "".join(f"<li>{_text(note)}</li>" for note in report["notes"])
    if notes:
        notes = f'<section aria-labelledby="n"><h2 id="n">Found in the file</h2><ul>{notes}</ul></section>'
    created = report["created"].replace("T", " ")
    made_by = report["made_by"]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<p class="badge">Not for diagnosis</p>
<h1>Super-resolution {_text(report["model"]["factor"])} of {_name(report["source"]["name"])}</h1>
<p class="quiet">{_text(created)} · {_name(report["model"]["name"])} {_text(report["model"]["version"])}</p>
</header>
<main>
{warnings}
{_figure(picture, report) if picture else ""}
<section aria-labelledby="d"><h2 id="d">What was done</h2>
{_what_was_done(report)}</section>
<section aria-labelledby="f"><h2 id="f">How faithful is it?</h2>
{_faithful(report)}</section>
{_removed(report, removed_picture)}
{_sure(report, error_pictures)}
<section aria-labelledby="i"><h2 id="i">Was anything invented?</h2>
{_invented(report)}</section>
<section aria-labelledby="a"><h2 id="a">Is this image like those the model knows?</h2>
{_alike(report)}</section>
<section aria-labelledby="g"><h2 id="g">Source and result</h2>
{_geometry(report)}</section>
<section aria-labelledby="m"><h2 id="m">The model, and how to make it again</h2>
{_again(report)}</section>
<section aria-labelledby="h"><h2 id="h">Files</h2>
{_files(report)}</section>
{notes}
</main>
<footer><p><strong>{_text(report["statement"])}</strong></p>
<p>Written by {_text(made_by["name"])} {_text(made_by["version"])} · {_text(report["schema"])} schema
{_text(report["schema_version"])} · no patient name or number from the image's header is in this page.</p></footer>
</body>
</html>
"""


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _name(value: Any) -> str:
    # bdi keeps a right-to-left character in a file name from turning round the words beside it.
    return f"<bdi>{_text(value)}</bdi>"


def _code(value: Any) -> str:
    return f"<code>{_text(value)}</code>"


def _figure(picture: bytes, report: Mapping[str, Any]) -> str:
    encoded = base64.b64encode(picture).decode("ascii")
    short, full = interpolation(report["model"]["scale_zyx"])
    alt = (
        f"Side by side: the input ({_size(report['source'])}), {full}, the result "
        f"({_size(report['output'])}) and the coloured difference between result and {short}; "
        "below them the most detailed square, magnified."
    )
    return f"""<figure>
<div class="scroll" role="region" aria-label="Picture, may be scrolled sideways" tabindex="0">
<img src="data:image/png;base64,{encoded}" alt="{_text(alt)}"></div>
<figcaption>Top: the whole image. Bottom: the outlined square, magnified. In the last column, red and blue are what
the model changed compared with {full}; grey is no change.</figcaption>
</figure>"""


def _size(image: Mapping[str, Any]) -> str:
    slices, rows, columns = image["shape_zyx"]
    return f"{columns} × {rows} pixels" + (f" × {slices} slices" if slices > 1 else "")


def _millimetres(image: Mapping[str, Any]) -> str:
    spacing = image["spacing_mm"]
    if spacing is None:
        return "unknown"
    x, y, z = spacing["between_columns"], spacing["between_rows"], spacing["between_slices"]
    return " × ".join(f"{value:.5g}" for value in (x, y, z) if value is not None) + " mm"


def _extent(image: Mapping[str, Any]) -> str:
    spacing = image["spacing_mm"]
    if spacing is None:
        return "unknown"
    slices, rows, columns = image["shape_zyx"]
    parts = [columns * spacing["between_columns"], rows * spacing["between_rows"]]
    if spacing["between_slices"] is not None:
        parts.append(slices * spacing["between_slices"])
    return " × ".join(f"{part:.1f}" for part in parts) + " mm"


def _modality(report: Mapping[str, Any]) -> str:
    return {"CXR": "chest X-ray", "CT": "chest CT"}.get(report["source"]["modality"], "image")


def _what_was_done(report: Mapping[str, Any]) -> str:
    source, output, model = report["source"], report["output"], report["model"]
    roi = report["roi_xyxy"]
    part = (
        f" Only columns {roi[0]} to {roi[2] - 1} and rows {roi[1]} to {roi[3] - 1} of it were enlarged." if roi else ""
    )
    samples, between = ("slices", "between_slices") if model["scale_zyx"][0] > 1 else ("pixels", "between_columns")
    detail = (
        f"The texture between the measured {samples} was <strong>generated</strong>: it is one of many that would fit."
        if model["generative"]
        else f"The detail between the measured {samples} was <strong>predicted</strong> from other images of the same "
        "kind."
    )
    if model["weights_sha256"] is None:
        detail = "It was interpolated by formula: nothing was learnt and no detail was added."
    distance = ""
    if source["spacing_mm"]:
        before, after = source["spacing_mm"], output["spacing_mm"]
        distance = (
            f" The distance between {samples} went from {_text(number(before[between]))} mm to "
            f"{_text(number(after[between]))} mm; every structure keeps its place and size in millimetres."
        )
    else:
        distance = " The distance between the pixels is unknown, so nothing here can be measured in millimetres."
    return f"""<p>The {_modality(report)} {_name(source["name"])} ({_size(source)}) was enlarged
{_text(model["factor"])} to {_size(output)} by the model {_name(model["name"])}, version {_text(model["version"])}.
{part} {detail}{distance} The original file was not changed.</p>
<p><strong>What this does not mean.</strong> The scanner did not measure more than before. A fine line, a nodule's edge
or a texture that can be seen only in the result may not exist in the patient, and one that exists may be missing. Read
the original for any finding.</p>"""


def _verdict(measured: Mapping[str, Any], interpolated: str) -> tuple[str, str]:
    """One of the page's classes, and a sentence, for the numbers of `report["consistency"]`."""
    result, bicubic = measured["result"], measured["bicubic"]
    if result is None or result["rms"] is None:
        return "caution", "Not measured: nothing can be said about how well the result agrees with the input."
    worst = ""
    if result["maximum"] is not None and result["maximum"] > 0.02 * measured["value_span"]:
        worst = f" At its worst pixel it is {number(result['maximum'])} {measured['unit']} off."
    if result["rms"] <= measured["good_rms"]:
        return "good", f"On the whole, the result agrees with the input to within what a screen can show.{worst}"
    if bicubic is None or bicubic["rms"] is None:
        return "caution", f"The result departs from the input by more than a screen can hide.{worst}"
    if result["rms"] < 0.98 * bicubic["rms"]:
        times = number(bicubic["rms"] / result["rms"])
        return "caution", (
            f"The result agrees with the input {times} times better than {interpolated} does, "
            f"though not to within what a screen can show.{worst}"
        )
    if result["rms"] <= 1.02 * bicubic["rms"]:
        return "caution", f"The result agrees with the input about as well as {interpolated} does.{worst}"
    return "bad", f"The result departs from the input more than {interpolated} does. Do not rely on it.{worst}"


def _faithful(report: Mapping[str, Any]) -> str:
    measured = report["consistency"]
    unit = _text(measured["unit"])
    short, full = interpolation(report["model"]["scale_zyx"])
    kind, sentence = _verdict(measured, full)
    entries = (measured["bicubic"], measured["network"], measured["result"])
    found = [entry["rms"] for entry in entries if entry and entry["rms"] is not None]
    longest = max([*found, measured["good_rms"], 1e-12])
    rows = ""
    alone = [("The network alone", measured["network"])] if measured["network"] else []
    for label, entry in ((f"Before: {short}", measured["bicubic"]), *alone, ("After: this result", measured["result"])):
        rms, maximum = (entry["rms"], entry["maximum"]) if entry else (None, None)
        if rms is None:
            rows += f'<tr><th scope="row">{label}</th><td colspan="2">not measured</td></tr>'
            continue
        width = max(100 * rms / longest, 1)
        largest = "not measured" if maximum is None else f"{_text(number(maximum))} {unit}"
        rows += (
            f'<tr><th scope="row">{label}</th><td>{_text(number(rms))} {unit}'
            f'<span class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span></td>'
            f"<td>{largest}</td></tr>"
        )
    good = number(measured["good_rms"])
    elsewhere = ""
    if measured["share"] < 1:
        share = _text(percent(measured["share"]))
        elsewhere = f" All of this is said of {share} of the input's pixels: not of where something was removed."
    return f"""<p class="verdict {kind}">{_text(sentence)}</p>
<p>An enlarged image can be checked without knowing the truth: reduce it to the input's size again and compare it with
the input. Here it was reduced by {_code(report["model"]["operator"])}, the loss of detail that the model is made to
undo: {_text(report["model"]["operator_words"])}.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">Reduced again</th><th scope="col">Typical difference (RMS)</th>
<th scope="col">Largest difference</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p>The input's values span {_text(number(measured["value_span"]))} {unit}. A typical difference of up to
<strong>{_text(good)} {unit}</strong> is good: it is no more than rounding, or less than a screen can show. A good
number means that the result does not contradict the input. It does <strong>not</strong> prove that the added detail is
true: many different fine images become the same input when they are reduced.{elsewhere}</p>"""


def _removed(report: Mapping[str, Any], picture: bytes) -> str:
    removed = report["removed"]
    if removed is None:
        return ""
    if not removed["places"]:
        verdict = '<p class="verdict good">Nothing was found that seems to be put on the image.</p>'
    else:
        count = f"{removed['places']} place{'s' * (removed['places'] != 1)}"
        verdict = f"""<p class="verdict caution">Something that seems to be put on the image, as a letter or a line, was
removed in {_text(count)}: {_text(percent(removed["share"]))} of the image.</p>"""
    figure = ""
    if picture:
        encoded = base64.b64encode(picture).decode("ascii")
        figure = f"""<div class="pair"><figure><img src="data:image/png;base64,{encoded}" alt="The result; the places
where something was removed are outlined in red."><figcaption>The result (of a volume, the slice from which most was
removed). <span class="mark">Red</span>: around what was removed.</figcaption></figure></div>"""
    return f"""<section aria-labelledby="r"><h2 id="r">What was removed?</h2>
{verdict}
{figure}
<p>The model was trained to take away letters, digits, circles and lines that were drawn on radiographs, and to say
where. What lies beneath is <strong>guessed</strong>. It may take a device or anatomy for a mark, and may leave a mark:
the side of the patient is what the original says.</p></section>
"""


_SPLITS = {"train": "meant for training", "val": "kept for checks", "test": "kept for tests", "all": "there at all"}
"""Splits of a manifest, as a reader says it."""


def _sure(report: Mapping[str, Any], pictures: Pictures | None) -> str:
    bars = report["error_bars"]
    if bars is None:
        return """<section aria-labelledby="s"><h2 id="s">How sure is each pixel?</h2>
<p class="verdict caution">Not known: this result has no error bars, so nothing says how far from the truth a pixel may
be.</p></section>
"""
    unit, on = _text(bars["unit"]), bars["calibrated_on"]
    percent, tolerance = number(bars["percent"]), number(bars["tolerance"])
    share = 100 * bars["share_above_tolerance"]
    marked = "no pixel" if share == 0 else f"{number(share)} % of the pixels" if share >= 0.1 else "under 0.1 %"
    likeness = _likeness(report)[0]
    verdict = "good" if share < 1 and likeness == "good" else "caution"
    doubt = (
        "" if likeness == "good" else " This image is not known to be like those they were made for: they may not hold."
    )
    low, high = bars["window"]
    share_of_window = number(100 * bars["tolerance"] / max(high - low, 1e-12))
    drawn = f", drawn as {_text(on['drawn'])}" if on["drawn"] else ""
    if on["drawn"] and on["drawn"] != report["run"]["sampling"]:
        drawn += f" (this image: {_text(report['run']['sampling'])}, for which nothing was measured)"
    links = " and ".join(f'<a href="{_text(quote(name))}">{_name(name)}</a>' for name in bars["files"])
    return f"""<section aria-labelledby="s"><h2 id="s">How sure is each pixel?</h2>
<p class="verdict {verdict}">The {_text(percent)} % error bars reach ±{_text(number(bars["mean"]))} {unit} on average;
for {marked} they are wider than ±{_text(tolerance)} {unit}.{doubt}</p>
{_sure_pictures(pictures, bars) if pictures else ""}
<p>The error bars promise to hold the true value of <strong>{_text(percent)} %</strong> of the pixels of an image, on
average over images like those they were calibrated on: {_text(on["images"])} images of {_text(on["patients"])} patients
(those of the set “{_name(on["data"])}” that were {_SPLITS.get(on["split"], _text(on["split"]))}; measured on
{_text(on["created"])}), made coarse by {_code(on["operator"])}{drawn}.
There they held {_text(f"{100 * on['coverage']:.1f}")} %. The widest twentieth of them is above
±{_text(number(bars["largest_twentieth"]))} {unit}.</p>
<p>How wide is too wide is the reader's to say, by <code>--tolerance</code>. Here it is ±{_text(tolerance)} {unit},
{_text(share_of_window)} % of the span of values that the model works in ({_text(number(low))} to {_text(number(high))}
{unit}); where none is named, {number(100 * TOLERATED)} % of that span is taken.</p>
{f"<p>As files, pixel by pixel: {links}.</p>" if links else ""}
<p><strong>What they do not say.</strong> One pixel in {_text(number(100 / max(100 - bars["percent"], 1e-9)))} may lie
outside. Images of another scanner, another kind of patient or another loss of detail may break the promise:
<code>monai-sr calibrate</code> makes new error bars from 50 to 100 images of your own hospital.</p></section>
"""


def _sure_pictures(pictures: Pictures, bars: Mapping[str, Any]) -> str:
    unit, tolerance, limit = _text(bars["unit"]), _text(number(bars["tolerance"])), _text(number(pictures.limit))
    mask, widths = (base64.b64encode(png).decode("ascii") for png in (pictures.mask, pictures.widths))
    return f"""<div class="pair">
<figure><img src="data:image/png;base64,{mask}" alt="The result; pixels whose error bar is wider than the tolerance are
red."><figcaption>The result (of a volume, its middle slice). <span class="mark">Red</span>: error bar wider than
±{tolerance} {unit}. Read the original there. A red pattern of small squares is the method's.</figcaption></figure>
<figure><img src="data:image/png;base64,{widths}" alt="The width of the error bars, dark where they are narrow."
><figcaption>The error bars. <span class="ramp" aria-hidden="true"></span> 0 to ±{limit} {unit} and
wider. The pattern of small squares, one for each pixel of the input, is the method's and no anatomy.</figcaption>
</figure></div>"""


def _invented(report: Mapping[str, Any]) -> str:
    if report["model"]["weights_sha256"] is None:
        return '<p class="verdict good">No: a formula drew smooth lines between what was measured.</p>'
    if report["model"]["generative"]:
        return """<p class="verdict caution">Yes: fine texture was generated. It looks like that of an original, and is
one of many that would fit the input. Read no finding in it.</p>"""
    if report["removed"] and report["removed"]["places"]:
        return """<p class="verdict caution">Yes: what lies beneath that which was removed was filled in by the model.
Elsewhere no texture was generated; where the model is unsure the result is smooth, and its detail is what it expects
after many other images: that, too, may be wrong.</p>"""
    return """<p class="verdict good">No texture was generated. Where the model is unsure the result is smooth, and its
detail is what it expects after many other images: that, too, may be wrong.</p>"""


def _likeness(report: Mapping[str, Any]) -> tuple[str, str]:
    """One of the page's classes, and a sentence, for `report["input_range"]`."""
    found = {name: Compared(**each) for name, each in report["input_range"].items() if name in NAMES}
    if report["model"]["weights_sha256"] is None:
        return "good", "Any image is: nothing was learnt, the result is that of a formula."
    if not found:
        return "caution", "Not judged, because this model does not state what its training images were like."
    if too_small(found):
        return "caution", f"Not judged, because the image has fewer than {LEAST_SIDE} pixels along one side."
    outside = [NAMES[name].words for name, each in found.items() if each.side]
    if outside:
        lies = "lies" if len(outside) == 1 else "lie"
        return "caution", f"No: its {_listed(outside)} {lies} outside the known range; {MAY_NOT_HOLD}."
    unknown = _listed([NAMES[name].words for name, each in found.items() if each.value is None])
    if unknown:
        return "caution", f"This cannot be told: its {unknown} is unknown; {MAY_NOT_HOLD}."
    lie = "lies" if len(found) == 1 else "lie"
    inside = _listed([NAMES[name].words for name in found])
    return "good", f"Yes, as far as this was measured: its {inside} {lie} within the known range."


def _listed(words: Sequence[str]) -> str:
    """One, one and another, or one, another and a third."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _alike(report: Mapping[str, Any]) -> str:
    kind, sentence = _likeness(report)
    verdict = f'<p class="verdict {kind}">{_text(sentence)}</p>'
    rows = ""
    for name, each in report["input_range"].items():
        if name in NAMES:
            value = "unknown" if each["value"] is None else f"{_text(number(each['value']))} {NAMES[name].unit}"
            known = f"{_text(number(each['low']))} to {_text(number(each['high']))} {NAMES[name].unit}"
            rows += f'<tr><th scope="row">{NAMES[name].words}</th><td>{value}</td><td>{known}</td></tr>'
    if not rows:
        return verdict
    meaning = (
        "The range is that of the thick slices which the model is for; nothing else was judged."
        if "slice_spacing_mm" in report["input_range"]
        else "The known range holds 99 of 100 training images, made coarse by "
        f"{_code(report['model']['operator'])}; of a volume the middle slice is compared. Sharpness is how much of the "
        "finest detail there is beside coarser detail, and noise the grain that no edge explains."
    )
    return f"""{verdict}
<div class="scroll"><table>
<thead><tr><td></td><th scope="col">This image</th><th scope="col">Known range</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p>{meaning} An image may lie within the known range and still be of a kind that the model has never seen.</p>"""


def _geometry(report: Mapping[str, Any]) -> str:
    source, output = report["source"], report["output"]
    rows = [
        ("Name", _name(source["name"]), _name(output["name"]) if output["name"] else "not written"),
        ("Size", _size(source), _size(output)),
        ("Distance between pixels", _millimetres(source), _millimetres(output)),
        ("Area covered", _extent(source), _extent(output)),
    ]
    body = "".join(f'<tr><th scope="row">{a}</th><td>{b}</td><td>{c}</td></tr>' for a, b, c in rows)
    return f"""<div class="scroll"><table>
<thead><tr><td></td><th scope="col">Source</th><th scope="col">Result</th></tr></thead>
<tbody>{body}</tbody></table></div>
<p class="quiet">Source: {_text(source["format"])}, {_text(source["modality"])}, {_text(source["bits"])} bits stored as
{_text(source["dtype"])}, {_text(source["photometric"])}.
Where its spacing comes from: {_text(source["spacing_source"])}.</p>"""


def _again(report: Mapping[str, Any]) -> str:
    model, run = report["model"], report["run"]
    weights = _code(model["weights_sha256"]) if model["weights_sha256"] else "none (a formula)"
    seconds = "unknown" if run["seconds"] is None else f"{number(run['seconds'])} s"
    rows = [
        ("Model", f"{_name(model['name'])} {_text(model['version'])}"),
        ("Made by", _name(model["manufacturer"]) if model["manufacturer"] else "not stated"),
        ("Enlargement", _text(model["factor"])),
        ("Made to undo", _code(model["operator"])),
        ("Texture", "generated" if model["generative"] else "not generated"),
        ("Weights (SHA-256)", weights),
        ("Computed by", f"{_text(run['backend'])} on {_text(run['device'])}, seed {_text(run['seed'])}, in {seconds}"),
        *([("Drawn by", _text(run["sampling"]))] if run["sampling"] else []),
        ("Software", _text(", ".join(f"{name} {version}" for name, version in run["libraries"].items()))),
    ]
    body = "".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in rows)
    return f"""<div class="scroll"><table><tbody>{body}</tbody></table></div>
<p>The same command, software and seed give the same pixels (folders are left out):</p>
<pre tabindex="0"><code>{_text(run["command"])}</code></pre>"""


def _files(report: Mapping[str, Any]) -> str:
    rows = ""
    for label, image in (("Source", report["source"]), ("Result", report["output"])):
        for file in image["files"] or []:
            cells = f"<td>{_name(file['name'])}</td><td>{_code(file['sha256'])}</td>"
            rows += f'<tr><th scope="row">{label}</th>{cells}</tr>'
        if not image["files"] and image["combined_sha256"]:
            rows += (
                f'<tr><th scope="row">{label}</th><td>{image["file_count"]} files together</td>'
                f"<td>{_code(image['combined_sha256'])}</td></tr>"
            )
    if not rows:
        return "<p>No files: the image came from memory and was not written.</p>"
    table = f"""<div class="scroll"><table>
<thead><tr><td></td><th scope="col">File</th><th scope="col">SHA-256</th></tr></thead>
<tbody>{rows}</tbody></table></div>"""
    dicom = report["source"]["dicom"]
    if dicom:
        instances = dicom["sop_instance_uids"]
        images = _code(instances[0]) if len(instances) == 1 else f"{len(instances)} images, listed in the JSON report"
        uids = [
            ("Study UID", " ".join(map(_code, dicom["study_uids"])) or "none"),
            ("Series UID", " ".join(map(_code, dicom["series_uids"])) or "none"),
            ("Image UID", images),
        ]
        body = "".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in uids)
        table += f'<div class="scroll"><table><caption>DICOM source</caption><tbody>{body}</tbody></table></div>'
    return table


_STYLE = (
    f"""
:root {{ --mark: rgb{MARK}; --dark: rgb{DARK}; --light: rgb{LIGHT}; }}
"""
    + """
:root { --page: #fbfbfa; --card: #ffffff; --ink: #1d2126; --quiet: #59626d; --line: #dcdfe3; --accent: #1f5fae;
  --good: #14663d; --good-back: #e6f4ec; --caution: #7a4b00; --caution-back: #fff3dc;
  --bad: #9c1c1c; --bad-back: #fdeaea; --code: #f0f1f3; }
@media (prefers-color-scheme: dark) { :root { --page: #121316; --card: #1b1d21; --ink: #e8eaee; --quiet: #a0a8b2;
  --line: #34383f; --accent: #7fb2f5; --good: #86d9aa; --good-back: #12301f; --caution: #ffcf85;
  --caution-back: #372607; --bad: #ffa3a3; --bad-back: #3d1414; --code: #26292e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header { margin-bottom: 1.5rem; }
h1 { margin: .5rem 0 .25rem; font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.25rem 0 .5rem; font-size: 1.2rem; line-height: 1.3; }
p, ul { margin: .6rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
.quiet, figcaption, footer { color: var(--quiet); font-size: .9rem; }
.badge { display: inline-block; margin: 0; padding: .15rem .7rem; border-radius: 1rem; font-size: .85rem;
  font-weight: 600; color: var(--caution); background: var(--caution-back); }
.warnings { margin: 1rem 0 1.5rem; padding: .75rem 1.1rem; border-left: .35rem solid var(--caution);
  border-radius: .4rem; background: var(--caution-back); color: var(--caution); }
.warnings h2 { margin: 0; font-size: 1.05rem; } .warnings ul { padding-left: 1.2rem; }
figure { margin: 0; }
figure .scroll { border-radius: .5rem; background: #121316; }
img { display: block; width: 100%; min-width: 44rem; height: auto; }
figcaption { margin-top: .5rem; max-width: 46rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.25rem; margin: 1rem 0; }
.pair img { min-width: 0; max-width: 32rem; border-radius: .5rem; background: #121316; }
.mark { padding: 0 .35rem; border-radius: .25rem; background: var(--mark); color: #fff; }
.ramp { display: inline-block; width: 6rem; height: .7rem; border: 1px solid var(--line); border-radius: .2rem;
  background: linear-gradient(90deg, var(--dark), var(--light)); }
.scroll { overflow-x: auto; }
.verdict { padding: .6rem 1rem; border-radius: .4rem; font-weight: 600; }
.good { color: var(--good); background: var(--good-back); } .bad { color: var(--bad); background: var(--bad-back); }
.caution { color: var(--caution); background: var(--caution-back); }
table { width: 100%; margin: .75rem 0; border-collapse: collapse; background: var(--card);
  border: 1px solid var(--line); font-size: .95rem; }
caption { padding: .4rem 0; text-align: left; font-weight: 600; }
th, td { padding: .5rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
th { font-weight: 600; } thead th { color: var(--quiet); font-size: .85rem; }
tbody th { width: 13rem; overflow-wrap: normal; } td { min-width: 7rem; }
.bar { display: block; height: .45rem; margin-top: .35rem; border-radius: .25rem; background: var(--code); }
.bar span { display: block; height: 100%; border-radius: .25rem; background: var(--accent); }
code { font: .88em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { padding: .8rem 1rem; border-radius: .4rem; background: var(--code); overflow-x: auto; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media (max-width: 36rem) { body { padding: 1.25rem .9rem 2rem; } th, td { padding: .45rem .5rem; }
  tbody th { width: 6rem; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --quiet: #444; --line: #bbb; --accent: #1f5fae;
  --good: #14663d; --good-back: #fff; --caution: #7a4b00; --caution-back: #fff; --bad: #9c1c1c; --bad-back: #fff;
  --code: #f4f4f4; }
  body { padding: 0; max-width: none; font-size: 10.5pt; } img { min-width: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .verdict, .badge, .warnings { border: 1px solid currentColor; }
  figure, table, .verdict, pre { break-inside: avoid; } h2 { break-after: avoid; }
  img, .bar, .bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
)
