"""Live requests on which the slots differ, to be labelled one after the other: the picture, and two answers.

The engine does not say which slot gave which answer, so that nobody labels in favour of one.
"""

from __future__ import annotations

from typing import Any

from console import text
from console.desk import Desk
from console.sheets.base import Field, Sheet
from console.sheets.images import picture
from console.view import View
from console.widgets.entry import Entry
from console.widgets.rows import Row
from console.words import _

WIDTH = 40


class Label(Sheet):
    """One request at a time, in the engine's order; what was said goes to the engine at once."""

    cancel = "Close"
    wide = 60

    def __init__(self, desk: Desk) -> None:
        self.item: dict[str, Any] = {}
        self.picture: list[Row] = []
        self.waiting = 0
        self.state = _("the engine looks for requests to label")
        super().__init__(desk)
        self.heading = _("Label live requests")
        desk.ask_engine("label", "--limit", "1", done=self._listed)

    def needed_fields(self) -> list[Field]:
        return [Field("class", _("another class"))]

    def body(self, view: View, width: int) -> list[Row]:
        if not self.item:
            return [*(Row(line, "dim") for line in text.wrap(self.state, width)), Row()]
        said = self._answers()
        rows = [Row(f"{self.item.get('id')}  ", "dim").put(f"{text.number(self.waiting)} {_('wait')}", "dim")]
        rows += [*self.picture[: max(1, self.desk.size.height - 14)], Row()]
        for number, one in enumerate(said, 1):
            rows.append(Row(f"{number} ", "bold accent").put(one))
        rows.append(
            Row("s ", "bold accent").put(_("cannot be told")).put("   n ", "bold accent").put(_("no class fits"))
        )
        return [*rows, *(Row(line, "warning") for line in text.wrap(self.state, width)), Row()]

    def _answers(self) -> list[str]:
        return [str(one.get("label")) for one in self.item.get("answers") or []]

    def key(self, key: str) -> bool:
        """A number takes that answer; `s` and `n` pass it over."""
        said = self._answers()
        if not self.item or key not in ("s", "n", *(str(number) for number in range(1, len(said) + 1))):
            return False
        name = str(self.item["id"])
        if key == "s":
            self._mark("--skip", name)
        elif key == "n":
            self._mark("--neither", name)
        else:
            self._mark(name, said[int(key) - 1])
        return True

    def submitted(self, entry: Entry) -> None:
        wanted = entry.value.strip()
        if self.item and wanted:
            entry.set("")
            self._mark(str(self.item["id"]), wanted)

    def _mark(self, *words: str) -> None:
        self.desk.ask_engine("label", *words, done=self._marked)

    def _marked(self, answer: dict[str, Any], problem: str) -> None:
        self.state = problem
        if problem:
            self._show()
        else:
            self.desk.ask_engine("label", "--limit", "1", done=self._listed)

    def _listed(self, answer: dict[str, Any], problem: str) -> None:
        items = answer.get("items") or []
        self.waiting = int((answer.get("live") or {}).get("waiting") or len(items))
        self.item, self.picture = (items[0] if items else {}), []
        self.state = problem or ("" if items else _("no request waits for a label"))
        self._show()
        if items:
            self.desk.ask_engine("label", "--show", str(items[0]["id"]), "--width", str(WIDTH), done=self._drawn)

    def _drawn(self, answer: dict[str, Any], problem: str) -> None:
        if answer.get("id") == self.item.get("id"):
            self.picture = picture(answer, self.desk.view())
        self.state = problem
        self._show()

    def _show(self) -> None:
        if self.is_mounted:
            self._placed = ()
            self.draw(self.desk.view())
