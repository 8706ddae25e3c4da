"""Slice views of trame-slicer in the page: rendered here, sent as pictures, moved by the browser's mouse.

trame-slicer's own factory sends one kind of picture. Here a view in motion is JPEG, which is fast, and a view at rest
is PNG, which loses nothing: JPEG artefacts must not be mistaken for those of a model. A picture is rendered when
the one before has been sent, so a slow machine shows fewer pictures, not late ones.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from trame.widgets import html
from trame.widgets.rca import RemoteControlledArea
from trame_rca.rca import VtkRemoteControlledArea
from trame_rca.view_adapter import RcaViewAdapter
from trame_server.utils.asynchronous import create_task
from trame_slicer.views import (
    CursorId,
    IViewFactory,
    ScheduledRenderStrategy,
    SliceView,
    ViewLayout,
    ViewLayoutDefinition,
    ViewType,
)
from vtkmodules.vtkCommonCore import vtkCommand

REST_SECONDS = 0.15
"""Seconds without a change after which a view is at rest."""
JPEG_QUALITY = 85
MOUSE_MS = 15
"""Milliseconds between two mouse positions that the browser sends."""


class Factory(IViewFactory):
    """A factory of slice views.

    Args:
        server: trame server of the page.
        decorate: function of the server and a view that adds what lies over the view.
    """

    def __init__(self, server, decorate: Callable):
        super().__init__()
        self._server, self._decorate = server, decorate

    def can_create_view(self, view: ViewLayoutDefinition) -> bool:
        return view.view_type == ViewType.SLICE_VIEW

    def _create_view(self, view, scene, applicationLogic):
        name = view.singleton_tag
        sliceView = SliceView(scene=scene, app_logic=applicationLogic, name=name)
        sliceView.set_view_properties(view.properties)
        sliceView.render_window().SetMultiSamples(0)  # without a GPU they take five times as long
        cursor = f"{name}_cursor"
        self._server.state[cursor] = CursorId.DEFAULT.value
        pictures = Pictures(_Window(sliceView.render_window(), self._server.state, cursor))
        with ViewLayout(self._server, template_name=name) as layout:
            style = "position: relative; width: 100%; height: 100%;"
            with html.Div(id=f"view-{name}", style=(f"`{style} overflow: hidden; cursor: ${{{cursor}}};`",)):
                RemoteControlledArea(
                    name=name, display="image", style=style, send_mouse_move=True, event_throttle_ms=(str(MOUSE_MS),)
                )
                self._decorate(self._server, sliceView)
        adapter = RcaViewAdapter(pictures.rca, name, scheduler=pictures, do_schedule_render_on_interaction=False)
        sliceView.set_scheduled_render(_Strategy(pictures))

        async def register():
            await self._server.ready  # the server's protocol exists only from then on
            self._server.root_server.controller.rc_area_register(adapter)

        create_task(register())
        return layout, sliceView, adapter

    def _get_slicer_view(self, view):
        return view[1]


class Pictures:
    """A scheduler of trame-rca that renders a view on request and pushes the picture.

    Args:
        window: window to be rendered.
    """

    def __init__(self, window):
        self.rca = window
        self.target_fps = 30.0  # the protocol needs it; the pictures themselves set the pace
        self._push = None
        self._requested = asyncio.Event()
        self._task = create_task(self._send())

    def set_push_callback(self, callback: Callable[[bytes, dict], None]) -> None:
        self._push = callback

    def schedule_render(self) -> None:
        self._requested.set()

    def reset(self) -> None:
        """Render for a client that has just connected."""
        self._requested.set()

    async def close(self) -> None:
        self._task.cancel()

    async def _send(self) -> None:
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self._sendOne("jpeg", quality=JPEG_QUALITY)
            try:
                # Not `wait_for`: of Python 3.11, it can swallow the cancellation that ends this task.
                async with asyncio.timeout(REST_SECONDS):
                    await self._requested.wait()
            except TimeoutError:
                await self._sendOne("png", compress_level=1)

    async def _sendOne(self, kind: str, **options) -> None:
        pixels, width, height = self.rca.img_cols_rows
        content = await asyncio.to_thread(_encode, pixels, kind, options)
        if self._push is not None:
            header = {"type": f"image/{kind}", "codec": "", "w": width, "h": height, "key": "key", "quality": 100}
            self._push(content, {**header, "st": int(1000 * time.time())})


class _Window(VtkRemoteControlledArea):
    def __init__(self, window, state, cursor: str):
        super().__init__(window)
        self._state, self._cursor = state, cursor

    def process_resize_event(self, width, height):
        super().process_resize_event(width, height)
        self._iren.InvokeEvent(vtkCommand.WindowResizeEvent)  # which a slice view waits for

    def process_interaction_event(self, event):
        super().process_interaction_event(event)
        cursor = CursorId.from_vtk_cursor_id(self._vtk_render_window.GetCurrentCursor()).value
        if self._state[self._cursor] != cursor:
            with self._state:
                self._state[self._cursor] = cursor


class _Strategy(ScheduledRenderStrategy):
    def __init__(self, pictures: Pictures):
        super().__init__()
        self._pictures = pictures

    def schedule_render(self):
        self._pictures.schedule_render()


def _encode(pixels: np.ndarray, kind: str, options: dict) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, **options)
    return file.getvalue()
