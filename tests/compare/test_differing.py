"""The verb `differing`: what the two releases disagree on, with pixels a terminal can draw."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.compare import records
from engine.compare.ab import run_ab
from engine.compare.thumbnails import half_blocks, thumbnail
from engine.config import Settings
from engine.store.workspace import Workspace
from engine.tasks.images.preprocess import ImageError
from tests.compare.conftest import Slot
from tests.conftest import Result

Pair = tuple[Slot, Slot]


def picture(size: tuple[int, int], colour: tuple[int, int, int] = (200, 30, 30), form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [((100, 50), 40, (40, 20)), ((8, 8), 16, (16, 16)), ((50, 500), 40, (8, 80)), ((3000, 1), 30, (30, 1))],
)
def test_a_thumbnail_keeps_the_shape_and_the_colour(
    size: tuple[int, int], width: int, expected: tuple[int, int]
) -> None:
    made = thumbnail(picture(size), width)
    assert (made["width"], made["height"]) == expected
    pixels = base64.b64decode(made["rgb"])
    assert len(pixels) == expected[0] * expected[1] * 3
    assert pixels[:3] == bytes((200, 30, 30))


def test_on_a_terminal_a_character_holds_two_pixels() -> None:
    lines = half_blocks(thumbnail(picture((3, 3)), 3))
    assert [line.count("▀") for line in lines] == [3, 3]
    assert "38;2;200;30;30m" in lines[0]
    assert "\x1b[49m" in lines[1]  # nothing stands below the last row


def test_a_thumbnail_of_no_image_is_refused() -> None:
    with pytest.raises(ImageError):
        thumbnail(b"no image", 10)


@pytest.fixture
def compared(workspace: Workspace, settings: Settings, slots: Pair, images: Path) -> Pair:
    """AS-IS wrong on images 3 and 8, of which 3 is a real picture; then a comparison of both slots."""
    (images / "dog" / "00003.png").write_bytes(picture((20, 10)))
    slots[0].answer = lambda body: (200, "cat" if body[:4] == b"\x89PNG" else _label(body, wrong=b"8"))
    slots[1].answer = lambda body: (200, "dog" if body[:4] == b"\x89PNG" else _label(body))
    run_ab(workspace, settings)
    return slots


def _label(body: bytes, wrong: bytes = b"") -> str:
    label, number = body.split(b"|")
    return {"cat": "dog", "dog": "cat"}[label.decode()] if number == wrong else label.decode()


def test_the_verb_gives_pixels_paths_and_hashes(
    workspace: Workspace, compared: Pair, images: Path, engine: Callable[..., Result]
) -> None:
    found = engine("differing", "--width", "10", "--json").json
    assert (found["id"], found["total"]) == (1, 2)
    by_name = {Path(image["path"]).name: image for image in found["images"]}
    drawn: dict[str, Any] = by_name["00003.png"]
    assert (drawn["label"], drawn["asis"], drawn["tobe"]) == ("dog", "cat", "dog")
    assert (drawn["width"], drawn["height"]) == (10, 5)
    assert len(base64.b64decode(drawn["rgb"])) == 150
    assert Path(drawn["path"]) == images / "dog" / "00003.png"
    assert by_name["00008.png"]["rgb"] == ""
    assert "not an image" in by_name["00008.png"]["problem"]

    (images / "dog" / "00003.png").write_bytes(picture((20, 10), (0, 0, 0)))
    (images / "cat" / "00008.png").unlink()
    again = engine("differing", "1", "--json").json["images"]
    assert {image["problem"][:20] for image in again} == {"the file changed sin", "cannot be read any m"}
    assert all(image["rgb"] == "" for image in again)


def test_people_read_a_table_and_the_limit_is_said(
    workspace: Workspace, compared: Pair, engine: Callable[..., Result]
) -> None:
    said = engine("differing", "--limit", "1").out
    assert "(right)" in said
    assert "and 1 more: --limit 2" in said
    assert engine("differing", "--limit", "1", "--json").json["total"] == 2


@pytest.mark.parametrize("word", ["7", "newest"])
def test_an_unknown_comparison_is_wrong_usage(
    workspace: Workspace, engine: Callable[..., Result], word: str
) -> None:
    assert engine("differing").code == 2
    records.store(workspace, {"id": 1, "n": 0}, [])
    done = engine("differing", word)
    assert done.code == 2
    assert "there is no comparison" in done.err
