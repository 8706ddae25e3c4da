"""The page's texts, inputs and buttons, bound to the state of `shell.Shell`, which makes all decisions."""

from __future__ import annotations

from SuperResolutionLib.box_nodes import SUFFIX
from SuperResolutionLib.enhancer import BOX, SLICE, WHOLE
from SuperResolutionLib.viewing import DIFFERENCE, FLICKER, OVER, REVEAL, SIDE_BY_SIDE
from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v

TITLE = "Super-resolution"
NOTICE = "Research only, not a medical device. Detail finer than the source spacing is predicted, not measured."
REGIONS = ((BOX, "Box"), (SLICE, "Slice"), (WHOLE, "All"))
KINDS = (
    (OVER, "Over"), (SIDE_BY_SIDE, "Side by side"), (REVEAL, "Reveal"), (FLICKER, "Flicker"),
    (DIFFERENCE, "Difference"),
)  # fmt: skip

STYLE = """
html { overflow: hidden; }
.sr-heading { font-size: 0.72rem; letter-spacing: 0.08em; text-transform: uppercase; }
.sr-heading { color: #9aa4ad; margin: 14px 0 4px; }
.sr-text { font-size: 0.8rem; line-height: 1.3; white-space: pre-line; color: #cfd6dc; overflow-wrap: anywhere; }
.sr-wrong { color: #ffb38a; font-weight: 600; }
.sr-note { font-size: 0.7rem; color: #9aa4ad; }
.sr-row { display: flex; gap: 6px; align-items: center; margin: 4px 0; }
.sr-row > * { flex: 1 1 0; min-width: 0; }
.sr-view-name { position: absolute; top: 8px; left: 12px; color: #fff; text-shadow: 0 0 3px #000; }
.sr-view-name { pointer-events: none; }
.sr-slice { position: absolute; bottom: 0; left: 12px; right: 12px; }
"""
COMPACT = {"density": "compact", "hide_details": True, "variant": "outlined"}
SWITCH = {"density": "compact", "hide_details": True}
BUTTON = {"density": "comfortable", "size": "small", "variant": "tonal", "block": True}
SUBTITLE = "entry.certainty === null ? entry.reader : `${entry.reader}, ${Math.round(100 * entry.certainty)} %`"


class Page:
    """The page; it is made once, after the shell.

    Args:
        server: trame server of the page.
        layouts: layout manager of the views; see `application.Application`.
    """

    def __init__(self, server, layouts):
        self._server, self._controller = server, server.controller
        server.state.trame__title = TITLE
        server.state.trame__favicon = None
        with VAppLayout(server) as layout:
            layout.root.theme = "dark"
            client.Style(STYLE)
            with v.VNavigationDrawer(permanent=True, width=370, classes="px-3 pb-6"):
                html.Div(TITLE, classes="text-h6 pt-3")
                html.Div(NOTICE, classes="sr-note")
                self._image()
                self._region()
                self._model()
                self._result()
                self._boxes()
            with v.VMain(), html.Div(style="height: 100vh; width: 100%; display: flex;"):
                layouts.initialize_layout_grid(layout)

    def _image(self) -> None:
        _heading("Image")
        with html.Div(classes="sr-row"):
            v.VTextField(
                v_model=("path",), label="File or folder on this computer", id="path", spellcheck=False,
                keyup_enter=(self._controller.load, "[path]"), **COMPACT,
            )  # fmt: skip
            _button("Open", "load", (self._controller.load, "[path]"), style="flex: 0 0 70px;", disabled=("loading",))
        v.VProgressLinear(indeterminate=True, v_show=("loading",))
        _text("loadMessage", isError=True)
        v.VSelect(v_model=("which",), items=("images",), v_show=("images.length > 1",), id="which", **COMPACT)
        with html.Div(v_show=("name",)):
            _text("name")
            _text("subjectText")
            with html.Div(id="window"):
                v.VRangeSlider(
                    v_model=("window",), min=("windowRange[0]",), max=("windowRange[1]",), step=("windowStep",),
                    label="Grey", strict=True, **SWITCH,
                )  # fmt: skip
            _button("Fit to view", "fit", self._controller.fit)

    def _region(self) -> None:
        _heading("Region")
        with html.Div(classes="sr-row"):
            toggle = {"mandatory": True, "density": "compact", "divided": True, "variant": "outlined"}
            with v.VBtnToggle(v_model=("regionKind",), **toggle):
                for kind, title in REGIONS:
                    v.VBtn(title, value=kind, size="small", id=f"region-{kind}")
            _button("New box", "newRegion", self._controller.newRegion, style="flex: 0 0 90px;", disabled=("!name",))
        _text("regionMessage", isError=True)

    def _model(self) -> None:
        _heading("Model")
        _text("absence", isError=True)
        v.VSelect(v_model=("bundle",), items=("bundles",), id="bundle", **COMPACT)
        _text("bundleText")
        _slider("texture", "Texture", disabled=("!textureEnabled",))
        with html.Div(classes="sr-row"):
            for name, title in (("steps", "Steps"), ("seed", "Seed")):
                v.VTextField(
                    v_model=(name,), type="number", min=0, label=title, id=name, disabled=("!stepsEnabled",), **COMPACT
                )
        with html.Div(classes="sr-row"):
            v.VCheckbox(v_model=("errorBars",), label="Error bars", id="errorBars", **SWITCH)
            v.VCheckbox(v_model=("live",), label="Live", id="live", **SWITCH)
        _text("estimateText")
        with html.Div(classes="sr-row"):
            _button("Run", "run", self._controller.run, disabled=("!canRun",), color="primary", variant="flat")
            _button("Cancel", "cancel", self._controller.cancel, disabled=("!canCancel",))
        with v.VProgressLinear(v_model=("progress",), v_show=("running",), height=20, color="primary", id="progress"):
            html.Span("{{ progressText }}", style="font-size: 0.75rem;")
        html.Div(
            "{{ message }}",
            v_show=("message",),
            id="message",
            classes=("messageIsError ? 'sr-text sr-wrong' : 'sr-text'",),
        )

    def _result(self) -> None:
        with html.Div(v_show=("results.length",), id="result-section"):
            _heading("Result")
            v.VSelect(v_model=("result",), items=("results",), id="result", **COMPACT)
            _text("resultText")
            _text("resultMessage", isError=True)
            with html.Div(classes="sr-row", style="flex-wrap: wrap;"):
                for kind, title in KINDS:
                    v.VBtn(
                        title, id=f"kind-{kind}", size="small", style="flex: 1 0 30%;",
                        variant=(f"kind === '{kind}' ? 'flat' : 'outlined'",),
                        color=(f"kind === '{kind}' ? 'primary' : ''",), click=(self._controller.compare, f"['{kind}']"),
                    )  # fmt: skip
            with html.Div(v_show=("hasBars",)):
                with html.Div(classes="sr-row"):
                    v.VCheckbox(v_model=("showBars",), label="Show error bars", id="showBars", **SWITCH)
                    v.VCheckbox(v_model=("showMask",), label="Mark above", id="showMask", **SWITCH)
                v.VTextField(
                    v_model=("tolerance",), type="number", min=0, label="Tolerance", id="tolerance", suffix=("unit",),
                    **COMPACT,
                )  # fmt: skip
                _text("toleranceText")
            with html.Div(classes="sr-row"):
                _button(
                    "Download", "downloadResult", "utils.download(resultFile, trigger('downloadResult'))",
                    disabled=("writing || !result",),
                )  # fmt: skip
                _button("Remove", "removeResult", self._controller.removeResult)

    def _boxes(self) -> None:
        with html.Div(v_show=("name",), id="boxes-section"):
            _heading("Anomaly boxes")
            with html.Div(classes="sr-row"):
                v.VTextField(v_model=("boxLabel",), label="Class", id="boxLabel", **COMPACT)
                v.VTextField(v_model=("boxReader",), label="Reader", id="boxReader", **COMPACT)
            _slider("boxCertainty", "Certainty")
            with v.VList(
                density="compact", v_show=("boxes.length",), id="boxes", mandatory=False, selected=("[box]",),
                update_selected="box = $event[0] || ''",
            ):  # fmt: skip
                v.VListItem(
                    v_for="entry in boxes", key="entry.id", value=("entry.id",), title=("entry.label",),
                    subtitle=(SUBTITLE,), classes="sr-box",
                )  # fmt: skip
            _text("boxText")
            _text("boxMessage", isError=True)
            with html.Div(classes="sr-row"):
                _button("Add", "addBox", self._controller.addBox)
                _button("Remove", "removeBox", self._controller.removeBox, disabled=("!box",))
            with html.Div(classes="sr-row"):
                _button(
                    "Save", "saveBoxes", f"utils.download('boxes{SUFFIX}', trigger('downloadBoxes'))",
                    disabled=("!boxes.length",),
                )  # fmt: skip
                v.VFileInput(
                    v_model=("boxUpload",), label="Load", accept=".json", id="loadBoxes", prepend_icon="", **COMPACT
                )


def _heading(text: str) -> None:
    html.Div(text, classes="sr-heading")


def _text(name: str, isError: bool = False) -> None:
    """Show a text of the state; an empty text takes no space."""
    html.Div(f"{{{{ {name} }}}}", v_show=(name,), classes="sr-text" + " sr-wrong" * isError, id=name)


def _button(title: str, name: str, click, **options) -> None:
    v.VBtn(title, id=name, click=click, **{**BUTTON, **options})


def _slider(name: str, title: str, **options) -> None:
    """Add a slider from 0 to 1."""
    with html.Div(id=name):
        v.VSlider(v_model=(name,), min=0, max=1, step=0.05, label=title, thumb_label=True, **SWITCH, **options)
