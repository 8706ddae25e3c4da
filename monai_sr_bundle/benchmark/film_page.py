"""The section of the page for people that a protocol of real conditions has: tables, where lost cells are coloured."""

from __future__ import annotations

from monai_sr_bundle.benchmark.film_comparison import WORSE, Cell, FilmComparison
from monai_sr_bundle.benchmark.film_tables import (
    describe_films,
    describe_versions,
    explain_figures,
    explain_unmodified,
    format_share,
    measured_rows,
    unmodified_table,
)
from monai_sr_bundle.benchmark.plots import format_signed
from monai_sr_bundle.report.html_document import escape, escape_name

_COLOURS = (
    '<span class="bad">Red</span>: on average worse than bicubic. <span class="caution">Yellow</span>: better on '
    f"average, but some images are more than {WORSE} dB worse."
)


def film_section(comparison: FilmComparison, anchor: str) -> str:
    """Return the section as HTML.

    Args:
        comparison: the results.
        anchor: name of the section that the contents link to.
    """
    protocol = comparison.protocol
    tables = "".join(
        f"<h3>Enlarged by {scale}</h3>\n{_summary_table(comparison, scale)}\n{_cell_table(comparison, scale)}\n"
        f"{_unmodified_table(comparison, scale)}"
        for scale in protocol.scales
    )
    notes = " ".join(map(escape, explain_figures(comparison)))
    unmodified = f'<p class="quiet">{escape(explain_unmodified(comparison))}</p>\n' if comparison.unmodified else ""
    return f"""<section class="protocol" aria-labelledby="{anchor}">
<h2 id="{anchor}">{escape(protocol.title)}</h2>
<p>{escape(protocol.about)}</p>
<p class="facts">{escape(describe_films(comparison))}</p>
<p class="quiet">protocol <code>{escape(protocol.name)}</code> · {escape(describe_versions(comparison))}</p>
<p class="quiet">{notes} {_COLOURS}</p>
{tables}{unmodified}</section>
"""


def _summary_table(comparison: FilmComparison, scale: int) -> str:
    rows = measured_rows(comparison, scale)
    if not rows:
        return f"<p>No method but bicubic enlarges by {scale}.</p>"
    titles = ("mean over cells", "least cell", f"worse by more than {WORSE} dB", "worst image", "interpolated")
    body = ""
    for row in rows:
        summary, facts = comparison.summary(row, scale), comparison.methods[row]
        least, lowest = summary.least, summary.lowest
        cells = (
            format_signed(summary.mean),
            f"{format_signed(least.gain.mean)}<small>{escape(least.set)}</small><small>{escape(least.loss)}</small>",
            f"{format_share(summary.worse)}<small>of {summary.pairs:,}</small>",
            f"{format_signed(lowest.gain)}<small>{escape(lowest.set)}</small><small>{escape(lowest.loss)}</small>"
            f"<small>{escape_name(lowest.image)}</small>",
            f"{format_share(summary.interpolated)}<small>of the pairs</small>"
            f"<small>{format_share(summary.unmodified_interpolated)} of the images as they are</small>",
            f"{facts.parameters:,}" if facts.parameters else "none",
            str(facts.training or "none"),
        )
        label = escape_name(comparison.protocol.rows[row].label)
        body += f'<tr><th scope="row">{label}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
    return _table(("Method", *titles, "parameters", "minutes of training"), body)


def _cell_table(comparison: FilmComparison, scale: int) -> str:
    protocol = comparison.protocol
    rows = measured_rows(comparison, scale)
    cells = [list(comparison.cells(row, scale)) for row in (protocol.reference_index, *rows)]
    body = ""
    for reference, *others in zip(*cells, strict=True):
        name = f"{escape(reference.set)}<small>{escape(reference.loss)}</small>"
        body += f'<tr><th scope="row">{name}</th><td>{reference.psnr.count}</td><td>{reference.psnr.mean:.2f}</td>'
        body += "".join(map(_gain_cell, others)) + "</tr>\n"
    return _table(("Set and loss", "images", "bicubic (dB)", *(protocol.rows[row].label for row in rows)), body)


def _unmodified_table(comparison: FilmComparison, scale: int) -> str:
    if not comparison.unmodified:
        return ""
    titles, lines = unmodified_table(comparison, scale)
    body = ""
    for film_set, *cells in lines:
        body += (
            f'<tr><th scope="row">{escape(film_set)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>\n'
        )
    return f"<h3>Unmodified images, enlarged by {scale}</h3>\n{_table(tuple(titles), body)}\n"


def _gain_cell(cell: Cell) -> str:
    colour = ' class="bad"' if cell.gain.mean < 0 else ' class="caution"' if cell.worse else ""
    low, high = cell.gain.low, cell.gain.high
    interval = f"<small>[{format_signed(low)}, {format_signed(high)}]</small>" if low < high else ""
    bars = f"<small>{100 * cell.coverage.mean:.0f} % of the pixels inside</small>" if cell.coverage else ""
    images = f"{format_share(cell.worse)} worse; least {format_signed(cell.lowest.gain)}"
    return f"<td{colour}>{format_signed(cell.gain.mean)}{interval}<small>{images}</small>{bars}</td>"


def _table(titles: tuple[str, ...], body: str) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    return f"""<div class="scroll table" role="region" aria-label="Table, may be scrolled sideways" tabindex="0">
<table><thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>"""
