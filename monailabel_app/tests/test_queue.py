"""The queue of images of every reader, in a server that is killed."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import PIL.Image
import pytest
from drawn_readings import box, reading
from labelling import next_image
from labelling.box_store import BoxStore
from monai_sr_bundle.boxes.readings import ImageIdentity, format_readings
from monai_sr_bundle.datasets.phantom import draw_phantom

IMAGES = {"a.png", "b.png", "c.png"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for seed, name in enumerate(sorted(IMAGES)):
        PIL.Image.fromarray(np.rint(draw_phantom(64, seed=seed) * 255).astype(np.uint8)).save(folder / name)
    return folder


def test_the_queues_of_several_readers_go_on_after_a_kill(server):
    def ask(name):
        return server.send("POST", "/activelearning/random", server.tokens[name], json={}).get("id")

    def read(name, image):
        one = reading("", box(1, 2, 30, 40), image=ImageIdentity(image))
        server.send("PUT", f"/boxes/{image}", server.tokens[name], json=json.loads(format_readings([one])))

    server.send("PUT", "/activelearning/readers", server.tokens["root"], json={"readers": 2})
    done, passed_over = ask("ada"), ask("ada")
    (untouched,) = IMAGES - {done, passed_over}
    read("ada", done)
    read("bob", done)
    of_bob = ask("bob")
    server.kill()
    server.start()
    assert ask("ada") == untouched  # what she was served comes again after everything else
    # For a third reader, one image has its two readers; another may have two who are at it.
    left = {passed_over, untouched} - ({untouched} if of_bob == untouched else set())
    assert {ask("eve") for _ in IMAGES} == left
    server.kill()
    server.start()
    assert ask("ada") in (passed_over, untouched)
    for image in (passed_over, untouched):
        read("ada", image)
        read("bob", image)
    assert {ask(name) for name in server.tokens} == {None}


def test_a_reader_who_does_not_come_back_holds_an_image_for_a_day(tmp_path, monkeypatch):
    store = BoxStore(tmp_path / "boxes.sqlite")
    next_image.set_readers_per_image(store, 1)
    assert next_image.next_image(store, ["chest.png"], "ada", "random")["id"] == "chest.png"
    assert next_image.next_image(store, ["chest.png"], "bob", "random") == {}
    monkeypatch.setattr(next_image, "HOLDS", timedelta(milliseconds=-1))
    assert next_image.next_image(store, ["chest.png"], "bob", "random")["id"] == "chest.png"
    store.close()
