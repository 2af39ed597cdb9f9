"""The panes by themselves: they fit wherever they are drawn, say what is true, and draw no more than is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from console import layout, words
from console.glyphs import ASCII, UNICODE, Glyphs
from console.keymap import default_keys
from console.panes import checkpoints, compare, devices, events, frame, log, road, slots, training
from console.theme import SHIPPED, load_themes
from console.view import Ui, View
from console.widgets.charts import area, areas, lean
from console.widgets.image import half_blocks
from console.widgets.rows import Row
from engine.protocol import Message, Progress
from tests.console.conftest import filled
from tests.console.scenes import many_checkpoints

DRAW: dict[str, Callable[[View, int, int], list[Row]]] = {
    "devices": devices.draw, "training": training.draw, "checkpoints": checkpoints.draw, "compare": compare.draw,
    "events": events.draw, "log": log.draw, "slots": slots.draw_both,
    "asis": lambda view, width, height: slots.draw(view, "asis", width, height),
    "tobe": lambda view, width, height: slots.draw(view, "tobe", width, height),
}  # fmt: skip


class Lines:
    def __init__(self, *lines: str, problem: str = "") -> None:
        self.name, self.lines, self.problem = "0042", list(lines), problem


def view(recording: str = "evening", glyphs: Glyphs = UNICODE, **ui: object) -> View:
    store, last = filled(recording)
    return View(store, last, glyphs, Ui(**ui), default_keys(), Lines("one", "two", "three"))  # type: ignore[arg-type]


def shown(rows: list[Row]) -> str:
    return "\n".join(row.plain.rstrip() for row in rows)


# the room there is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", ["evening", "busy", "trouble", "empty"])
@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("zoomed", [False, True])
def test_every_pane_fits_into_every_room(recording: str, language: str, zoomed: bool) -> None:
    words.choose(language)
    try:
        found = view(recording, zoomed=zoomed)
        for width in (16, 24, 36, 37, 40, 56, 66, 76, 79, 98, 116, 140, 196):
            for height in (1, 2, 3, 6, 9, 16, 19, 34, 50):
                for name, draw in DRAW.items():
                    rows = draw(found, width, height)
                    assert len(rows) <= height, (name, width, height)
                    wide = [row.plain for row in rows if row.at > width]
                    assert not wide, (name, width, height, wide[0])
    finally:
        words.choose("en")


@pytest.mark.parametrize(
    "size", [(1, 1), (20, 5), (40, 10), (60, 15), (80, 24), (100, 30), (120, 40), (200, 60), (320, 90)]
)
@pytest.mark.parametrize("zoomed", [False, True])
def test_boxes_lie_beside_each_other_on_the_screen(size: tuple[int, int], zoomed: bool) -> None:
    width, height = size
    for focus in layout.PANES:
        plan = layout.plan(width, height, focus, zoomed, 20)
        taken: set[tuple[int, int]] = set()
        for name in layout.BOXES:
            region = plan.region(name)
            if region is None or width < 20 or height < 10:
                continue
            x, y, columns, rows = region
            cells = {(column, row) for column in range(x, x + columns) for row in range(y, y + rows)}
            assert not cells & taken, name
            assert all(column < width and row < height - 1 for column, row in cells), name
            taken |= cells
        assert focus in plan.boxes or (focus == "slots" and plan.slots) or {"asis", "tobe"} <= set(plan.boxes)
        assert len(frame.draw(view("empty"), plan)) == height


def test_a_large_terminal_shows_every_pane_and_a_middle_one_all_but_the_log() -> None:
    assert set(layout.plan(200, 60, "training").boxes) == {"asis", "tobe", *layout.PANES} - {"slots"}
    assert "log" not in layout.plan(120, 40, "training").boxes
    assert "log" in layout.plan(120, 40, "log").boxes
    assert {"log", "checkpoints"} <= set(layout.plan(120, 56, "training").boxes)


def test_ten_thousand_checkpoints_cost_the_rows_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = view()
    many = many_checkpoints(10_000)
    found.store.apply(
        Message(v=1, seq=1, at="2026-11-20T17:41:00+09:00", host="studio", kind="checkpoints", data=many),
        found.now,
    )
    drawn: list[object] = []
    sorts: list[object] = []
    line, sort = checkpoints._line, checkpoints.SORTS["saved"]
    monkeypatch.setattr(checkpoints, "_line", lambda *words: drawn.append(1) or line(*words))
    monkeypatch.setitem(checkpoints.SORTS, "saved", lambda one: sorts.append(1) or sort(one))
    found.ui.place("checkpoints").cursor = 9_000
    for _time in range(5):
        assert len(checkpoints.draw(found, 116, 30)) == 30
    assert len(drawn) == 5 * 29
    assert len(sorts) == 10_000


# what they say -------------------------------------------------------------------------------------------


def test_devices_say_more_where_there_is_room() -> None:
    found = view("busy")
    dense = shown(devices.draw(found, 36, 20))
    assert "8 × H200" in dense
    assert "▲88°C" in dense
    assert "engine train" not in dense
    roomy = shown(devices.draw(found, 60, 60))
    assert "50005 python -m engine train" in roomy
    assert "the driver has not answered for 40 s" in roomy


def test_the_figures_of_a_host_that_is_gone_are_faded() -> None:
    rows = devices.draw(view("trouble"), 60, 40)
    at = next(index for index, row in enumerate(rows) if row.plain.startswith("gpu-box"))
    assert "offline" in rows[at].plain
    assert {role for row in rows[at + 2 :] for _text, role in row.spans} <= {"dim"}


def test_runs_are_listed_with_state_best_and_time() -> None:
    found = view()
    said = shown(training.draw(found, 100, 30))
    for part in ("◐ running", "● completed", "○ interrupted", "✕ failed", "✕ lost", "87.1%", "resnet34"):
        assert part in said
    found.ui.place("training").cursor = 3
    said = shown(training.draw(found, 100, 30))
    assert "CUDA out of memory" in said
    assert "▸ 0039" in said


def test_a_rate_is_in_what_the_run_goes_through() -> None:
    found = view()
    last = training.items(found)[0].progress
    assert last is not None
    for task, unit in ((None, "img/s"), ("images", "img/s"), ("go", "pos/s"), ("motion", "samples/s")):
        runs = Progress(runs=[replace(last, task=task)])
        message = Message(v=1, seq=9, at="2026-11-20T17:45:00+09:00", host="studio", kind="progress", data=runs)
        found.store.apply(message, found.now)
        assert f" {unit}" in shown(training.draw(found, 100, 30))


def test_a_run_that_has_ended_keeps_the_curves_that_were_seen() -> None:
    found = view()
    later = Message(v=1, seq=9, at="2026-11-20T17:45:00+09:00", host="studio", kind="progress", data=Progress())
    found.store.apply(later, found.now)
    listed = found.store.runs
    assert listed is not None
    ended = replace(listed, runs=[replace(listed.runs[0], status="completed"), *listed.runs[1:]])
    found.store.apply(replace(later, kind="runs", data=ended), found.now)
    one = training.items(found)[0]
    assert (one.name, one.status) == ("0042", "completed")
    assert one.progress is not None
    assert len(one.progress.points) > 20
    assert "loss" in shown(training.draw(found, 80, 12))


def test_a_comparison_under_way_shows_how_far_it_has_come() -> None:
    said = shown(compare.draw(view("busy", focus="compare", zoomed=True), 116, 34))
    for part in (
        "620/1,240 images",
        "p 0.081",
        "e 1.9 of 20",
        "evidence",
        "TO-BE wrong",
        "they differ on 55 images",
    ):
        assert part in said
    classes = [
        line for line in said.splitlines() if line.startswith(("borzoi", "collie", "husky")) and "%" in line
    ]
    assert [line.split()[0] for line in classes] == ["borzoi", "collie", "husky"]
    assert "+6.7" in classes[0]


def test_slots_show_the_watch_over_a_promotion_and_the_shadow() -> None:
    said = shown(slots.draw_both(view("busy"), 116, 34))
    for part in (
        "◐ watched",
        "44,870 req",
        "3 errors",
        "96.9% agree",
        "152 differ",
        "5 failed",
        "verified",
        "damaged",
    ):
        assert part in said
    assert "✕ ALARM" in shown(slots.draw(view("trouble"), "asis", 56, 4))
    assert "0.34% of its answers" in shown(slots.draw_both(view("trouble"), 116, 34))


def test_the_watch_over_a_promotion_stands_on_the_road_with_the_key_that_takes_it_back() -> None:
    seen = view("busy")
    assert "watched" in shown(road.draw(seen, 120, 2, "UNDERSTUDY"))
    seen = view("trouble")
    seen.store.feed = "live"
    assert "ALARM" in shown(road.draw(seen, 120, 2, "UNDERSTUDY"))
    assert road.next_action(seen) == "undo"


def test_a_watch_with_too_few_answers_is_not_shown_as_passed() -> None:
    seen = view("busy")
    assert seen.store.slots
    assert seen.store.slots.bake
    object.__setattr__(seen.store.slots, "bake", replace(seen.store.slots.bake, state="unjudged"))
    seen.store.feed = "live"
    for said in (shown(slots.draw_both(seen, 116, 34)), shown(road.draw(seen, 120, 2, "UNDERSTUDY"))):
        assert "not judged" in said
        assert "passed" not in said


def test_nothing_is_said_of_what_was_not_heard() -> None:
    for name in ("checkpoints", "compare", "events", "devices", "training"):
        silent = view("busy")
        silent.store.clear()
        assert "no figures yet" in shown(DRAW[name](silent, 60, 10)), name


def test_what_wants_a_person_stands_on_the_road() -> None:
    for width in (80, 120, 200):
        said = shown(road.draw(view("trouble"), width, 2, "UNDERSTUDY"))
        assert "[u] " in said
        assert "▲ AS-IS answers with" in said
        assert "(+1)" in said


def test_events_have_a_sign_and_a_word() -> None:
    said = shown(events.draw(view(), 76, 10))
    assert "▴ promoted" in said
    assert "✕ refused" in said
    found = view(filters={"events": "refused"})
    assert len(events.draw(found, 76, 10)) == 1


def test_the_log_follows_its_end_until_it_is_moved() -> None:
    found = view()
    lines = Lines(*(f"line {index}" for index in range(30)))
    found.log = lines
    place = found.ui.place("log")
    assert shown(log.draw(found, 40, 5)).splitlines()[-1] == "line 29"
    lines.lines.append("line 30")
    assert shown(log.draw(found, 40, 5)).splitlines()[-1] == "line 30"
    place.cursor -= 1
    log.draw(found, 40, 5)
    lines.lines.append("line 31")
    assert shown(log.draw(found, 40, 5)).splitlines()[-1] == "line 29"
    assert "2 below" in log.title(found).plain
    place.cursor = 10**9
    assert shown(log.draw(found, 40, 5)).splitlines()[-1] == "line 31"
    found.log = Lines("\x1b[31m2026-11-20T17:45:11.4+09:00 ERROR\x1b[0m\tgone", problem="the child ended")
    first, last = log.draw(found, 40, 5)
    assert first.plain == "17:45:11 ERROR  gone"
    assert ("ERROR  gone", "danger") in first.spans
    assert "the child ended" in last.plain


# what they draw with -------------------------------------------------------------------------------------


def test_a_history_stays_in_its_half_of_a_cell() -> None:
    values = [0.2, 0.9, 0.4, 0.7]
    before = area(values, 4, UNICODE, count=4)
    after = area([*values, 0.5], 4, UNICODE, count=5)
    assert after[:3] == before[1:]
    two = areas([1.0, 0.1], 1, 2, UNICODE)
    assert two == ["⡇", "⣇"]
    assert areas([1.0, 0.1], 2, 2, ASCII) == ["# ", "#."]


def test_a_gap_leans_to_its_side() -> None:
    assert lean(0.5, 4, UNICODE, high=1.0) == ("    ", "┊", "━━  ")
    assert lean(-1.0, 4, UNICODE, high=1.0) == ("━━━━", "┊", "    ")


def test_a_picture_is_two_pixels_a_cell() -> None:
    themes, _faults = load_themes([SHIPPED])
    red, blue, white = b"\xff\x00\x00", b"\x00\x00\xff", b"\xff\xff\xff"
    rows = half_blocks(red + white + blue + white + red + red, 2, 3)
    assert [row.plain for row in rows] == ["▀▀", "▀▀"]
    upper = next(iter(rows[0].strip(2, themes["understudy"])))
    assert upper.style is not None
    assert upper.style.color is not None
    assert upper.style.bgcolor is not None
    assert (upper.style.color.name, upper.style.bgcolor.name) == ("#ff0000", "#0000ff")
    ground = next(iter(rows[1].strip(2, themes["understudy"]))).style
    assert ground is not None
    assert ground.bgcolor is not None
    assert ground.bgcolor.name == themes["understudy"].colors["background"]
    grey = half_blocks(bytes([0, 0, 0] * 4 + [255, 255, 255] * 4), 4, 2)
    assert [segment.text for segment in half_blocks(white * 8, 4, 2)[0].strip(4, themes["mono"])] == ["████"]
    assert grey[0].strip(4, themes["mono"]).text.strip(" ░▒▓█▀▄") == ""
    assert [row.plain for row in half_blocks(white * 2 + b"\x00" * 6, 2, 2, ASCII)] == ["++"]
    with pytest.raises(ValueError, match="not 2 × 2 pixels"):
        half_blocks(b"abc", 2, 2)


def test_ascii_is_ascii(tmp_path: Path) -> None:
    themes, _faults = load_themes([SHIPPED])
    theme = replace(themes["mono"], ascii=True)
    for recording in ("busy", "trouble"):
        found = view(recording, ASCII, zoomed=True)
        for draw in DRAW.values():
            for row in draw(found, 116, 34):
                assert row.strip(116, theme).text.isascii(), row.plain
