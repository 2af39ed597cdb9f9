"""Where every pane stands at a size of the terminal, and the lines between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from console.glyphs import Glyphs

PANES = ("devices", "training", "checkpoints", "compare", "events", "log", "slots")
BOXES = ("asis", "tobe", *PANES)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with its border: columns x0 to x1 and rows y0 to y1, both ends included."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """x, y, width and height inside the border, with a blank column at either side."""
        return self.x0 + 2, self.y0 + 1, max(0, self.x1 - self.x0 - 3), max(0, self.y1 - self.y0 - 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """A layout. `mode` is "full", "single" (one pane at a time) or "tiny"."""

    mode: str
    width: int
    height: int
    road: int
    slots: dict[str, tuple[int, int, int, int]]
    boxes: dict[str, Box] = field(default_factory=dict)

    def region(self, name: str) -> tuple[int, int, int, int] | None:
        """x, y, width, height of what a pane draws on; None where it is not shown."""
        if name in self.slots:
            return self.slots[name]
        box = self.boxes.get(name)
        return box.inner if box else None


def plan(width: int, height: int, focus: str, zoomed: bool = False, devices: int = 0) -> Plan:
    """The layout for a terminal of this size.

    Args:
        focus: the pane that is shown where only one fits, or `zoomed`.
        devices: how many rows the devices want; 0 where that is not known yet.
    """
    if width >= 100 and height >= 30 and not zoomed:
        arranged = _wide if width >= 160 and height >= 45 else _full
        return Plan("full", width, height, 2, {}, arranged(width, height, focus, devices))
    if width < 72 or height < 20:
        road = 2 if height >= 10 else 1
        slots = {"asis": (1, road, width - 2, 1), "tobe": (1, road + 1, width - 2, 1)}
        boxes = {focus: Box(-1, road + 2, width, max(road + 3, height - 1))}
        return Plan("tiny", width, height, road, slots, boxes)
    if focus == "slots":
        return Plan("single", width, height, 2, {}, {focus: Box(0, 2, width - 1, height - 2)})
    slots = {"asis": (1, 2, width - 2, 1), "tobe": (1, 3, width - 2, 1)}
    return Plan("single", width, height, 2, slots, {focus: Box(0, 4, width - 1, height - 2)})


def _full(width: int, height: int, focus: str, devices: int) -> dict[str, Box]:
    """Two columns: what is decided at the left, what happens at the right. The log takes the checkpoints' place
    while it has the focus; a tall terminal has room for both."""
    side = max(38, min(72, width * 3 // 10))
    split = width - 1 - side
    middle = split // 2
    top, bottom = 2, height - 2
    slots = top + 5
    spare = max(0, height - 40)
    compare = slots + 7 + min(10, spare * 2 // 5)
    training = compare + max(7, min(11, height - 29)) + spare // 4
    boxes = {
        "asis": Box(0, top, middle, slots),
        "tobe": Box(middle, top, split, slots),
        "compare": Box(0, slots, split, compare),
        "training": Box(0, compare, split, training),
    }
    rest = bottom - training
    if rest >= 17:
        boxes["checkpoints"] = Box(0, training, split, training + rest * 3 // 5)
        boxes["log"] = Box(0, training + rest * 3 // 5, split, bottom)
    else:
        boxes["log" if focus == "log" else "checkpoints"] = Box(0, training, split, bottom)
    return boxes | _right(split, width - 1, top, bottom, devices)


def _wide(width: int, height: int, focus: str, devices: int) -> dict[str, Box]:
    """Three columns above, the lists below them over two: a large terminal shows every pane at once."""
    side = max(48, min(80, width * 3 // 10))
    split = width - 1 - side
    middle = split // 2
    top, bottom = 2, height - 2
    slots = top + 8
    charts = slots + max(17, min(24, (height - 12) * 2 // 5))
    checkpoints = charts + max(6, (bottom - charts) * 11 // 20)
    return {
        "asis": Box(0, top, middle, slots),
        "tobe": Box(middle, top, split, slots),
        "compare": Box(0, slots, middle, charts),
        "training": Box(middle, slots, split, charts),
        "checkpoints": Box(0, charts, split, checkpoints),
        "log": Box(0, checkpoints, split, bottom),
    } | _right(split, width - 1, top, bottom, devices)


def _right(left: int, right: int, top: int, bottom: int, devices: int) -> dict[str, Box]:
    """Devices with the rows they want, at most two thirds; events below them."""
    most = max(9, (bottom - top) * 2 // 3)
    events = top + (min(most, max(8, devices + 1)) if devices else most)
    return {"devices": Box(left, top, right, events), "events": Box(left, events, right, bottom)}


def lines(chosen: Plan, glyphs: Glyphs) -> dict[int, list[str]]:
    """The border characters of a plan by row; rows without any are left out."""
    links: dict[tuple[int, int], int] = {}

    def link(x: int, y: int, bits: int) -> None:
        if 0 <= x < chosen.width:
            links[x, y] = links.get((x, y), 0) | bits

    for box in chosen.boxes.values():
        bottom = box.y1 if chosen.mode != "tiny" else None
        for x in range(box.x0, box.x1 + 1):
            bits = (1 if x < box.x1 else 0) | (2 if x > box.x0 else 0)
            link(x, box.y0, bits)
            if bottom is not None:
                link(x, bottom, bits)
        for y in range(box.y0, box.y1 + 1) if bottom is not None else ():
            bits = (4 if y < box.y1 else 0) | (8 if y > box.y0 else 0)
            link(box.x0, y, bits)
            link(box.x1, y, bits)
    down_right, down_left, up_right, up_left = glyphs.corners
    tee_down, tee_up, tee_right, tee_left, cross = glyphs.tees
    signs = {
        3: glyphs.horizontal, 12: glyphs.vertical, 5: down_right, 6: down_left, 9: up_right, 10: up_left,
        7: tee_down, 11: tee_up, 13: tee_right, 14: tee_left, 15: cross, 1: glyphs.horizontal, 2: glyphs.horizontal,
    }  # fmt: skip
    # bits: 1 right, 2 left, 4 down, 8 up
    rows: dict[int, list[str]] = {}
    for (x, y), bits in links.items():
        rows.setdefault(y, [" "] * chosen.width)[x] = signs.get(bits, glyphs.vertical)
    return rows
