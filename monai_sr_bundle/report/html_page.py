"""The report as a page for people: plain HTML that needs no network, no script and no second file.

Everything from outside passes through `html_document.escape` on its way into the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from monai_sr_bundle.images.input_checks import LEAST_SIDE, MAY_NOT_HOLD, NAMES, InputComparison, is_too_small
from monai_sr_bundle.inferers.data_consistency import percent
from monai_sr_bundle.report.error_pictures import DARK, LIGHT, MARK, ErrorBarPictures
from monai_sr_bundle.report.grain import MORE
from monai_sr_bundle.report.html_document import count_words, embed_png, escape, escape_name, html_document
from monai_sr_bundle.report.preview import format_number, name_interpolation
from monai_sr_bundle.uncertainty.error_bars import TOLERATED


def page(
    report: Mapping[str, Any],
    picture: bytes,
    error_pictures: ErrorBarPictures | None = None,
    removed_picture: bytes = b"",
) -> str:
    """Return the report as one HTML page.

    Args:
        report: dictionary of `build.build_report`.
        picture: PNG of the preview, or nothing for a page without a picture.
        error_pictures: pictures of the error bars.
        removed_picture: PNG that outlines removed artifacts, or nothing.
    """
    model, made_by = report["model"], report["made_by"]
    process = "Interpolation" if _is_interpolated(report) else "Super-resolution"
    title = f"{process} {model['factor']} of {report['source']['name']}"
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in report["warnings"])
    if warnings:
        warnings = f'<h2 id="w">Please note</h2><ul>{warnings}</ul>'
        warnings = f'<section class="warnings" aria-labelledby="w">{warnings}</section>'
    notes = "".join(f"<li>{escape(note)}</li>" for note in report["notes"])
    if notes:
        notes = f'<section aria-labelledby="n"><h2 id="n">Found in the file</h2><ul>{notes}</ul></section>'
    created = report["created"].replace("T", " ")
    header = f"""<h1>{process} {escape(model["factor"])} of {escape_name(report["source"]["name"])}</h1>
<p class="quiet">{escape(created)} · {escape_name(model["name"])} {escape(model["version"])}</p>"""
    main = f"""{warnings}
{_figure(picture, report) if picture else ""}
<section aria-labelledby="d"><h2 id="d">What was done</h2>
{_what_was_done(report)}</section>
<section aria-labelledby="f"><h2 id="f">How faithful is it?</h2>
{_fidelity(report)}</section>
{_removed_artifacts(report, removed_picture)}
{_error_bars(report, error_pictures)}
<section aria-labelledby="i"><h2 id="i">Was anything invented?</h2>
{_invented_detail(report)}</section>
<section aria-labelledby="a"><h2 id="a">Is this image like those the model knows?</h2>
{_input_range(report)}</section>
<section aria-labelledby="g"><h2 id="g">Source and result</h2>
{_geometry(report)}</section>
<section aria-labelledby="m"><h2 id="m">The model, and how to make it again</h2>
{_reproduction(report)}</section>
<section aria-labelledby="h"><h2 id="h">Files</h2>
{_files(report)}</section>
{notes}"""
    footer = f"""<footer><p><strong>{escape(report["statement"])}</strong></p>
<p>Written by {escape(made_by["name"])} {escape(made_by["version"])} · {escape(report["schema"])} schema
{escape(report["schema_version"])} · no patient name or number from the image's header is in this page.</p></footer>
"""
    colours = f":root {{ --mark: rgb{MARK}; --dark: rgb{DARK}; --light: rgb{LIGHT}; }}\n"
    return html_document("report", title, header, main, footer=footer, style=colours)


def _is_interpolated(report: Mapping[str, Any]) -> bool:
    """Return whether a formula made the result."""
    return report["model"]["weights_sha256"] is None


def _code(value: Any) -> str:
    return f"<code>{escape(value)}</code>"


def _figure(picture: bytes, report: Mapping[str, Any]) -> str:
    short, full = name_interpolation(report["model"]["scale_zyx"])
    alt = (
        f"Side by side: the input ({_size(report['source'])}), {full}, the result "
        f"({_size(report['output'])}) and the coloured difference between result and {short}; "
        "below them the outlined square, magnified."
    )
    difference = f"red and blue are what the model changed compared with {full}; grey is no change"
    if _is_interpolated(report):
        difference = f"grey is no change: the result is {full}"
    return f"""<figure>
<div class="scroll" role="region" aria-label="Picture, may be scrolled sideways" tabindex="0">
{embed_png(picture, alt)}</div>
<figcaption>Top: what was enlarged. Bottom: the outlined square, magnified. Last column: {difference}.</figcaption>
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


def _distance(spacing_mm: Mapping[str, float | None] | None, sides: Sequence[str]) -> str:
    """Return the distances between samples in words, one where they are equal; empty where they are unknown."""
    numbers = [number for side in sides if spacing_mm and (number := spacing_mm[f"between_{side}"])]
    different = [*dict.fromkeys(map(format_number, numbers))]
    if len(different) > 1:
        return f"{' x '.join(different)} mm ({' x '.join(sides)})"
    return f"{different[0]} mm" if different else ""


def _what_was_done(report: Mapping[str, Any]) -> str:
    source, output, model = report["source"], report["output"], report["model"]
    image = f"the {_modality(report)} {escape_name(source['name'])}"
    part, verb = f"T{image[1:]}", "was"
    if roi := report["roi_xyxy"]:
        part, verb = f"Of {image}, columns {roi[0]} to {roi[2] - 1} and rows {roi[1]} to {roi[3] - 1}", "were"
    samples, sides = ("slices", ["slices"]) if model["scale_zyx"][0] > 1 else ("pixels", ["columns", "rows"])
    by = f"the model {escape_name(model['name'])}, version {escape(model['version'])}"
    detail = (
        f"The texture between the measured {samples} was <strong>generated</strong>: it is one of many that would fit."
        if model["generative"]
        else f"The detail between the measured {samples} was <strong>predicted</strong> from other images of the same "
        "kind."
    )
    if _is_interpolated(report):
        outside = f"because it is outside the limits of the model {escape_name(model['instead_of'] or '')}"
        why = f", {outside}" if model["instead_of"] else ""
        by = f"interpolation ({escape_name(model['name'])} {escape(model['version'])}){why}"
        detail = "Nothing was predicted, and no detail was added."
    strength = report["run"]["strength"]
    if strength is not None:
        cost = f"<strong>Noise was reduced</strong> with strength {strength:g} of 1, and texture that may be real too."
        detail += f" {cost}" if strength else " Noise was not reduced (strength 0)."
    before, after = (_distance(each["spacing_mm"], sides) for each in (source, output))
    if before:
        distance = (
            f" The distance between {samples} went from {before} to {after}; every structure keeps its place and size "
            "in millimetres."
        )
    else:
        distance = f" The distance between the {samples} is unknown, so nothing here can be measured in millimetres."
    return f"""<p>{part} ({_size(source)}) {verb} enlarged
{escape(model["factor"])} to {_size(output)} by {by}. {detail}{distance} The original file was not changed.</p>
<p><strong>What this does not mean.</strong> Nothing more was measured than before. A fine line, a nodule's edge
or a texture that can be seen only in the result may not exist in the patient, and one that exists may be missing. Read
the original for any finding.</p>"""


def _judge_fidelity(report: Mapping[str, Any], interpolated: str) -> tuple[str, str]:
    """Judge the numbers of `report["consistency"]`: return a class of the page and a sentence."""
    measured, strength = report["consistency"], report["run"]["strength"]
    result, bicubic = measured["result"], measured["bicubic"]
    if result["rms"] is None:
        return "caution", "Not measured: nothing can be said about how well the result agrees with the input."
    worst_pixel = ""
    if result["maximum"] > 0.02 * measured["value_span"]:
        worst_pixel = f" At its worst pixel it is {format_number(result['maximum'])} {measured['unit']} off."
    if result["rms"] <= measured["good_rms"]:
        return "good", f"On the whole, the result agrees with the input to within what a screen can show.{worst_pixel}"
    if report["model"]["blind"]:
        takes = "takes noise, blur and JPEG away; whether all that it took was that"
        if strength is not None:
            takes = f"reduces noise, here with strength {strength:g} of 1; whether all that it took was noise"
        return "caution", (
            f"The result differs from the input by {format_number(result['rms'])} {measured['unit']} in the root mean "
            f"square; up to {format_number(measured['good_rms'])} would not show on a screen. The model {takes} cannot "
            f"be measured here.{worst_pixel}"
        )
    if result["rms"] < 0.98 * bicubic["rms"]:
        times = format_number(bicubic["rms"] / result["rms"])
        return "caution", (
            f"The result agrees with the input {times} times better than {interpolated} does, "
            f"though not to within what a screen can show.{worst_pixel}"
        )
    if result["rms"] <= 1.02 * bicubic["rms"]:
        return "caution", f"The result agrees with the input about as well as {interpolated} does.{worst_pixel}"
    return "bad", f"The result departs from the input more than {interpolated} does. Do not rely on it.{worst_pixel}"


def _fidelity(report: Mapping[str, Any]) -> str:
    measured = report["consistency"]
    unit = escape(measured["unit"])
    short, full = name_interpolation(report["model"]["scale_zyx"])
    kind, sentence = _judge_fidelity(report, full)
    distances = {f"Before: {short}": measured["bicubic"]}
    if measured["network"]:
        distances["The network alone"] = measured["network"]
    distances["After: this result"] = measured["result"]
    values = [distance["rms"] for distance in distances.values() if distance["rms"] is not None]
    longest = max([*values, measured["good_rms"], 1e-12])
    rows = ""
    for label, distance in distances.items():
        rms = distance["rms"]
        if rms is None:
            rows += f'<tr><th scope="row">{label}</th><td colspan="2">not measured</td></tr>'
            continue
        width = max(100 * rms / longest, 1)
        rows += (
            f'<tr><th scope="row">{label}</th><td>{format_number(rms)} {unit}'
            f'<span class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span></td>'
            f"<td>{format_number(distance['maximum'])} {unit}</td></tr>"
        )
    good = format_number(measured["good_rms"])
    proof = (
        ""
        if _is_interpolated(report)
        else " It does <strong>not</strong> prove that the added detail is true: many different fine images become the "
        "same input when they are reduced."
    )
    exception = ""
    if measured["share"] < 1:
        share = escape(percent(measured["share"]))
        exception = f" These numbers cover {share} of the input's pixels: those where nothing was removed."
    return f"""<p class="verdict {kind}">{escape(sentence)}</p>
<p>An enlarged image can be checked without knowing the truth: reduce it to the input's size again and compare it with
the input. Here it was reduced by {_code(report["model"]["operator"])}: {escape(report["model"]["operator_words"])}. A
model that takes away noise differs from the input by it.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">Reduced again</th><th scope="col">Typical difference (RMS)</th>
<th scope="col">Largest difference</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p>The input's values span {format_number(measured["value_span"])} {unit}. A typical difference of up to
<strong>{good} {unit}</strong> is good: it is no more than rounding, or less than a screen can show. A good
number means that the result does not contradict the input.{proof}{exception}</p>"""


def _removed_artifacts(report: Mapping[str, Any], picture: bytes) -> str:
    removed = report["removed"]
    if removed is None:
        return ""
    if not removed["places"]:
        verdict = '<p class="verdict good">No burned-in mark was detected.</p>'
    else:
        verb = "was" if removed["places"] == 1 else "were"
        verdict = f"""<p class="verdict caution">{count_words(removed["places"], "burned-in mark")} (letters or lines)
{verb} detected and removed: {escape(percent(removed["share"]))} of the image.</p>"""
    figure = ""
    if picture:
        image = embed_png(picture, "The result; removed marks are outlined in red.")
        pictured = _describe_picture(report, "the slice from which most was removed")
        figure = f"""<div class="pair"><figure>{image}<figcaption>{pictured}.
<span class="mark">Red</span>: outline of the removed marks.</figcaption></figure></div>"""
    return f"""<section aria-labelledby="r"><h2 id="r">What was removed?</h2>
{verdict}
{figure}
<p>The model was trained to detect letters, digits, circles and lines that were drawn on radiographs, and to remove
them. The image beneath a mark is <strong>guessed</strong>. The model may take a device or anatomy for a mark, and may
leave a mark: read the side of the patient in the original.</p></section>
"""


def _describe_picture(report: Mapping[str, Any], of_volume: str) -> str:
    return f"The result, {of_volume}" if report["output"]["shape_zyx"][0] > 1 else "The result"


_SPLITS = {"train": "training split", "val": "validation split", "test": "test split", "all": "all images"}
"""Splits of a manifest in words."""


def _error_bars(report: Mapping[str, Any], pictures: ErrorBarPictures | None) -> str:
    bars = report["error_bars"]
    if bars is None:
        return """<section aria-labelledby="s"><h2 id="s">How sure is each pixel?</h2>
<p class="verdict caution">Not known: this result has no error bars, so nothing says how far from the truth a pixel may
be.</p></section>
"""
    unit, calibration = escape(bars["unit"]), bars["calibrated_on"]
    percent, tolerance = format_number(bars["percent"]), format_number(bars["tolerance"])
    share = 100 * bars["share_above_tolerance"]
    marked = f"{format_number(share)} % of the pixels" if share >= 0.1 else "under 0.1 % of them"
    if share == 0:
        marked = "no pixel"
    likeness = _judge_input(report)[0]
    verdict = "good" if share < 1 and likeness == "good" else "caution"
    doubt = (
        "" if likeness == "good" else " This image is not known to be like those they were made for: they may not hold."
    )
    if bars["undercoverage"]:
        verdict, doubt = "caution", f"{doubt} {escape(bars['undercoverage'])}"
    low, high = bars["window"]
    share_of_window = format_number(100 * bars["tolerance"] / max(high - low, 1e-12))
    sampling = f", drawn as {escape(calibration['drawn'])}" if calibration["drawn"] else ""
    split = _SPLITS.get(calibration["split"], escape(calibration["split"]))
    if calibration["drawn"] and calibration["drawn"] != report["run"]["sampling"]:
        sampling += f" (this image: {escape(report['run']['sampling'])}, for which nothing was measured)"
    guaranteed = calibration["guaranteed_percent"]
    few = (
        ""
        if guaranteed is None
        else f"\nSo few guarantee only {format_number(guaranteed)} %, on average over further patients; of one "
        "patient fewer pixels may be inside."
    )
    links = " and ".join(f'<a href="{escape(quote(name))}">{escape_name(name)}</a>' for name in bars["files"])
    return f"""<section aria-labelledby="s"><h2 id="s">How sure is each pixel?</h2>
<p class="verdict {verdict}">The {percent} % error bars reach ±{format_number(bars["mean"])} {unit} on average,
and more than ±{tolerance} {unit} for {marked}.{doubt}</p>
{_error_bar_pictures(pictures, report) if pictures else ""}
<p>The error bars are made to hold the true value of <strong>{percent} %</strong> of the pixels of an image, on
average over images like those they were calibrated on: {escape(calibration["images"])} images of
{escape(calibration["patients"])} patients (set “{escape_name(calibration["data"])}”, {split}; measured on
{escape(calibration["created"])}), made coarse by {_code(calibration["operator"])}{sampling}.
There they held {escape(f"{100 * calibration['coverage']:.1f}")} %.{few} The widest twentieth of them is above
±{format_number(bars["largest_twentieth"])} {unit}.</p>
<p>The reader sets the accepted width with <code>--tolerance</code>. Here it is ±{tolerance} {unit},
{share_of_window} % of the span of values that the model works in ({format_number(low)} to {format_number(high)}
{unit}); the default is {format_number(100 * TOLERATED)} % of that span.</p>
{f"<p>As files, pixel by pixel: {links}.</p>" if links else ""}
<p><strong>What they do not say.</strong> One pixel in {format_number(100 / max(100 - bars["percent"], 1e-9))} may lie
outside, and of a single image or patient more. They
may not hold for another scanner, another kind of patient or another loss of detail:
<code>monai-sr calibrate</code> makes new error bars from 50 to 100 images of your own hospital.</p></section>
"""


def _error_bar_pictures(pictures: ErrorBarPictures, report: Mapping[str, Any]) -> str:
    bars = report["error_bars"]
    unit, tolerance, limit = escape(bars["unit"]), format_number(bars["tolerance"]), format_number(pictures.limit)
    mask = embed_png(pictures.mask, "The result; pixels whose error bar is wider than the tolerance are red.")
    widths = embed_png(pictures.widths, "The width of the error bars, dark where they are narrow.")
    return f"""<div class="pair">
<figure>{mask}<figcaption>{_describe_picture(report, "the middle slice")}.
<span class="mark">Red</span>: error bar wider
than ±{tolerance} {unit}. Read the original there. A regular pattern of small red squares is the
method's.</figcaption></figure>
<figure>{widths}<figcaption>The error bars. <span class="ramp" aria-hidden="true"></span> 0 to ±{limit} {unit} and
wider. A regular pattern of small squares, as some models have it, is the method's and no anatomy.</figcaption>
</figure></div>"""


def _invented_detail(report: Mapping[str, Any]) -> str:
    if _is_interpolated(report):
        return '<p class="verdict good">No: a formula drew smooth lines between what was measured.</p>'
    if report["model"]["generative"]:
        return """<p class="verdict caution">Yes: fine texture was generated. It looks like that of an original, and is
one of many that would fit the input. Read no finding in it.</p>"""
    filled = ""
    if report["removed"] and report["removed"]["places"]:
        filled = "Yes: what lies beneath that which was removed was filled in by the model. Elsewhere: "
    kind, measured = _judge_grain(report)
    return f"""<p class="verdict {"caution" if filled else kind}">{filled}No texture was drawn at random. {measured}
All detail that is finer than the input's is what the model expects after many other images, and may be wrong.</p>"""


def _judge_grain(report: Mapping[str, Any]) -> tuple[str, str]:
    """Judge `report["grain"]`: return a class of the page and a sentence."""
    grain, unit = report["grain"], escape(report["consistency"]["unit"])
    _, interpolation = name_interpolation(report["model"]["scale_zyx"])
    if grain is None:
        return "caution", "Whether grain of the input has become structure was not measured: no part is even enough."
    both = f"{format_number(grain['result'])} against {format_number(grain['interpolation'])} {unit}"
    if grain["result"] > MORE * grain["interpolation"]:
        times = format_number(grain["result"] / grain["interpolation"])
        return "caution", (
            f"In the evenest parts the result varies {times} times as much as {interpolation} does ({both}): grain of "
            "the input may have become structure that looks like tissue."
        )
    no_more = "no more than" if grain["result"] <= grain["interpolation"] else "hardly more than"
    return "good", f"In the evenest parts the result varies {no_more} {interpolation} does ({both})."


def _judge_input(report: Mapping[str, Any]) -> tuple[str, str]:
    """Judge `report["input_range"]`: return a class of the page and a sentence."""
    comparisons = {name: InputComparison(**measure) for name, measure in report["input_range"].items()}
    instead_of = report["model"]["instead_of"]
    if _is_interpolated(report) and not instead_of:
        return "good", "Any image is: nothing was learnt, the result is that of a formula."
    if not comparisons:
        return "caution", "Not judged, because this model does not state what its training images were like."
    if is_too_small(comparisons):
        return "caution", f"Not judged, because the image has fewer than {LEAST_SIDE} pixels along one side."
    outside = [NAMES[name].words for name, comparison in comparisons.items() if comparison.side]
    if outside:
        lies = "lies" if len(outside) == 1 else "lie"
        if _is_interpolated(report):
            limits = f"outside the limits of {instead_of}"
            return "caution", f"No: its {_join_words(outside)} {lies} {limits}, so the image was interpolated."
        return "caution", f"No: its {_join_words(outside)} {lies} outside the known range; {MAY_NOT_HOLD}."
    unknown = _join_words([NAMES[name].words for name, comparison in comparisons.items() if comparison.value is None])
    if unknown:
        return "caution", f"This cannot be told: its {unknown} is unknown; {MAY_NOT_HOLD}."
    lie = "lies" if len(comparisons) == 1 else "lie"
    inside = _join_words([NAMES[name].words for name in comparisons])
    return "good", f"Yes, as far as this was measured: its {inside} {lie} within the known range."


def _join_words(words: Sequence[str]) -> str:
    """Join words as in "one", "one and another" or "one, another and a third"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _input_range(report: Mapping[str, Any]) -> str:
    kind, sentence = _judge_input(report)
    verdict = f'<p class="verdict {kind}">{escape(sentence)}</p>'
    rows = ""
    for name, measure in report["input_range"].items():
        unit = NAMES[name].unit
        value = "unknown" if measure["value"] is None else f"{format_number(measure['value'])} {unit}"
        known_range = f"{format_number(measure['low'])} to {format_number(measure['high'])} {unit}"
        rows += f'<tr><th scope="row">{NAMES[name].words}</th><td>{value}</td><td>{known_range}</td></tr>'
    if not rows:
        return verdict
    meaning = (
        "The range is that of the thin slices which the model has learnt from; nothing else was judged."
        if "slice_spacing_mm" in report["input_range"]
        else "The known range is that of the images that the model was trained on; of a volume the middle slice is "
        "compared. Sharpness is how much of the finest detail there is beside coarser detail, noise the grain that no "
        "edge explains, and contrast the distance of the bright from the dark parts."
    )
    return f"""{verdict}
<div class="scroll"><table>
<thead><tr><td></td><th scope="col">This image</th><th scope="col">Known range</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p>{meaning} An image may lie within the known range and still be of a kind that the model has never seen.</p>"""


def _geometry(report: Mapping[str, Any]) -> str:
    source, output = report["source"], report["output"]
    rows = [
        ("Name", escape_name(source["name"]), escape_name(output["name"]) if output["name"] else "not written"),
        ("Size of the region" if report["roi_xyxy"] else "Size", _size(source), _size(output)),
        ("Distance between pixels", _millimetres(source), _millimetres(output)),
        ("Area covered", _extent(source), _extent(output)),
    ]
    body = "".join(f'<tr><th scope="row">{a}</th><td>{b}</td><td>{c}</td></tr>' for a, b, c in rows)
    return f"""<div class="scroll"><table>
<thead><tr><td></td><th scope="col">Source</th><th scope="col">Result</th></tr></thead>
<tbody>{body}</tbody></table></div>
<p class="quiet">Source: {escape(source["format"])}, {escape(source["modality"])}, {escape(source["bits"])} bits stored
as {escape(source["dtype"])}, {escape(source["photometric"])}.
Where its spacing comes from: {escape(source["spacing_source"])}.</p>"""


def _reproduction(report: Mapping[str, Any]) -> str:
    model, run = report["model"], report["run"]
    weights = _code(model["weights_sha256"]) if model["weights_sha256"] else "none (a formula)"
    seconds = "unknown" if run["seconds"] is None else f"{format_number(run['seconds'])} s"
    rows = [
        ("Model", f"{escape_name(model['name'])} {escape(model['version'])}"),
        ("Made by", escape_name(model["manufacturer"]) if model["manufacturer"] else "not stated"),
        ("Enlargement", escape(model["factor"])),
        ("Reduced again by", _code(model["operator"])),
        ("Texture", "generated" if model["generative"] else "not generated"),
        ("Weights (SHA-256)", weights),
        (
            "Computed by",
            f"{escape(run['backend'])} on {escape(run['device'])}, seed {escape(run['seed'])}, in {seconds}",
        ),
        *([("Drawn by", escape(run["sampling"]))] if run["sampling"] else []),
        *([("Noise reduced", f"with strength {run['strength']:g} of 1")] if run["strength"] is not None else []),
        ("Software", escape(", ".join(f"{name} {version}" for name, version in run["libraries"].items()))),
    ]
    body = "".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in rows)
    return f"""<div class="scroll"><table><tbody>{body}</tbody></table></div>
<p>The same command, software and seed give the same pixels (folders are left out):</p>
<pre tabindex="0"><code>{escape(run["command"])}</code></pre>"""


def _files(report: Mapping[str, Any]) -> str:
    rows = ""
    for label, image in (("Source", report["source"]), ("Result", report["output"])):
        for file in image["files"] or []:
            cells = f"<td>{escape_name(file['name'])}</td><td>{_code(file['sha256'])}</td>"
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
