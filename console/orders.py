"""What may be changed, when, and in which words the engine is told: one set of rules for sheets and `--plain`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePath

from console import text
from console.panes.compare import gate_of
from console.view import View
from console.words import _
from engine.protocol import EXPORT_FORMATS, Backup, Checkpoint, Held, Run, Slots

FORMATS = ("all", *EXPORT_FORMATS)


class Refused(Exception):
    """Why something is not done, in a sentence for the person; `role` says how grave it is."""

    def __init__(self, sentence: str, role: str = "warning") -> None:
        super().__init__(sentence)
        self.role = role


def live(view: View, kind: str = "slots") -> None:
    """Nothing is changed by figures that may be old.

    Raises:
        Refused: they are not live.
    """
    fresh = view.fresh(kind)
    if fresh.state != "live":
        why = f" ({fresh.why})" if fresh.why else ""
        raise Refused(_("refused: the figures are not live") + why, "danger")


def live_slots(view: View) -> Slots:
    """Both slots, while their figures are live.

    Raises:
        Refused: they are not, or there are none.
    """
    live(view)
    slots = view.store.slots
    if slots is None:
        raise Refused(_("no figures yet"))
    return slots


@dataclass(frozen=True)
class Promotion:
    """What was shown to the person: this release takes the place of that one, with the gate open or against it."""

    release: str
    replaces: str | None
    forced: bool

    @classmethod
    def of(cls, view: View) -> Promotion:
        """The promotion that may be asked for now.

        Raises:
            Refused: there is nothing to promote, or the figures are old.
        """
        slots = live_slots(view)
        if slots.tobe.release is None:
            raise Refused(_("nothing to promote: TO-BE is empty"))
        if slots.tobe.release == slots.asis.release:
            raise Refused(_("nothing to promote: both slots hold the same release"))
        gate = gate_of(view)
        return cls(slots.tobe.release, slots.asis.release, gate is None or not gate.open)

    @property
    def digits(self) -> str:
        """What is typed to go past a closed gate."""
        return self.release[:8]

    def words(self, view: View, digits: str = "", reason: str = "") -> tuple[str, ...]:
        """The engine's words, if what was shown still holds; `--expect` makes the engine check it once more.

        Raises:
            Refused: something has changed since, or the closed gate's digits or reason are missing.
        """
        slots = live_slots(view)
        if slots.tobe.release != self.release:
            raise Refused(_("TO-BE has changed since this was opened: close it and look again"))
        if slots.asis.release != self.replaces:
            raise Refused(_("AS-IS has changed since this was opened: close it and look again"))
        expected = ("promote", "--expect", self.release)
        if not self.forced:
            gate = gate_of(view)
            if gate is None or not gate.open:
                raise Refused(_("the gate has closed since this was opened: close it and look again"))
            return expected
        if digits.strip().lower() != self.digits.lower():
            raise Refused(_("those are not the release's first eight digits"))
        if not reason.strip():
            raise Refused(_("a reason is needed: it goes into the log"))
        return (*expected, "--force", "--reason", reason.strip())


def backups(view: View) -> list[Backup]:
    """What can be put back, newest first.

    Raises:
        Refused: the figures are old.
    """
    return list(live_slots(view).backups)


def undo(view: View) -> Backup:
    """The newest backup that holds another release than AS-IS does now: what its last change replaced.

    Raises:
        Refused: there is none, or the figures are old.
    """
    slots = live_slots(view)
    for one in slots.backups:
        if one.release is None or one.release != slots.asis.release:
            return one
    raise Refused(_("there is no backup yet: promoting makes one"))


def restore(view: View, name: str | None, replaces: str | None) -> tuple[str, ...]:
    """The engine's words that put a backup back on AS-IS, while it still holds the release that was shown.

    Raises:
        Refused: something has changed since, or the backup is known to be damaged.
    """
    slots = live_slots(view)
    if slots.asis.release != replaces:
        raise Refused(_("AS-IS has changed since this was opened: close it and look again"))
    known = {one.name: one for one in slots.backups}
    if name not in known:
        raise Refused(_("the backups have changed since this was opened: close it and look again"))
    if known[name].verified is False:
        raise Refused(_("that backup is damaged: its hash is not what it should be"))
    return "rollback", known[name].name


def comparable(view: View) -> Slots:
    """Both slots, each with a release.

    Raises:
        Refused: one is empty, or the figures are old.
    """
    slots = live_slots(view)
    if slots.asis.release is None or slots.tobe.release is None:
        raise Refused(_("a comparison needs a release in both slots"))
    return slots


def rivals(view: View) -> Slots:
    """Both slots, each with a release of its own: there are answers that differ.

    Raises:
        Refused: they hold the same release, one is empty, or the figures are old.
    """
    slots = comparable(view)
    if slots.asis.release == slots.tobe.release:
        raise Refused(_("both slots hold the same release: no answers differ"))
    return slots


def compare(images: str) -> tuple[str, ...]:
    """`ab` on so many images; "" for as many as are configured."""
    images = images.strip()
    if images and not (images.isascii() and images.isdigit() and int(images) > 0):
        raise Refused(_("the number of images is a whole number above 0"))
    return ("ab", "--images", images) if images else ("ab",)


def train(settings: str) -> tuple[str, ...]:
    """`train` in the background with settings as they are typed."""
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise Refused(str(error)) from None
    wrong = next((word for word in words if "=" not in word or word.startswith("-")), None)
    if wrong:
        raise Refused(f"'{wrong}' {_('is not section.key=value')}")
    return ("train", "--detach", *words)


def stopped_runs(view: View) -> list[Run]:
    """The trainings that can be gone on with, newest first.

    Raises:
        Refused: there is none.
    """
    runs = view.store.runs
    found = [run for run in runs.runs if run.status in ("interrupted", "lost")] if runs else []
    if not found:
        raise Refused(_("no training that was interrupted"), "dim")
    return found


def running_runs(view: View) -> list[Run]:
    """The trainings on this host that can be stopped, newest first.

    Raises:
        Refused: there is none, or the figures are old.
    """
    live(view, "runs")
    runs = view.store.runs
    found = [run for run in runs.runs if run.status == "running"] if runs else []
    if not found:
        raise Refused(_("no training is running on this host"), "dim")
    return found


def resume(run: str) -> tuple[str, ...]:
    return ("train", "--detach", "--resume", run)


def stop(run: str) -> tuple[str, ...]:
    return ("train", "--stop", run)


def down_slots(view: View) -> list[str]:
    """The slots that nothing serves: "asis", "tobe".

    Raises:
        Refused: both are served.
    """
    slots = view.store.slots
    down = [name for name in ("asis", "tobe") if slots is None or getattr(slots, name).state == "down"]
    if not down:
        raise Refused(_("both slots are served"), "dim")
    return down


def serve(down: list[str]) -> tuple[str, ...]:
    return ("serve", "all" if len(down) == 2 else down[0])


def held(view: View) -> Held | None:
    """Who keeps TO-BE as it is, since when; None where nobody does."""
    return view.store.health.held if view.store.health else None


def hold(reason: str) -> tuple[str, ...]:
    return ("hold", "--reason", reason.strip()) if reason.strip() else ("hold",)


def whole(view: View, one: Checkpoint | None) -> Checkpoint:
    """A checkpoint that an export or an analysis can be made of.

    Raises:
        Refused: none is chosen, it was refused, or the figures are old.
    """
    live(view, "checkpoints")
    if one is None:
        raise Refused(_("choose a checkpoint first"), "dim")
    if one.state in ("refused", "rejected"):
        raise Refused(f"{_('that checkpoint was refused')}: {one.reason or text.NONE}")
    return one


def export(view: View, one: Checkpoint, formats: str, data: str) -> tuple[str, ...]:
    """`export` into the workspace, where its proof is found again; "" for the formats and data as configured.

    Raises:
        Refused: an unknown format.
    """
    kinds = formats.replace(",", " ").split()
    if wrong := next((kind for kind in kinds if kind not in FORMATS), None):
        raise Refused(f"'{wrong}' {_('is none of')} {', '.join(FORMATS)}")
    chosen = [word for kind in kinds for word in ("--format", kind)]
    return ("export", *_judged(view, one, "exports", data), *chosen)


def analyze(view: View, one: Checkpoint, data: str) -> tuple[str, ...]:
    """`analyze` into the workspace; "" for data as configured."""
    return ("analyze", *_judged(view, one, "analysis", data))


def _judged(view: View, one: Checkpoint, place: str, data: str) -> tuple[str, ...]:
    workspace = view.store.health.workspace if view.store.health else None
    if workspace is None:
        raise Refused(_("no figures yet"))
    digits = f"-{one.sha256[:8]}" if one.sha256 else ""  # many files are called best_model
    name = one.release[:8] if one.release else PurePath(one.path).stem + digits
    words = ("--checkpoint", one.path, "--output-dir", str(PurePath(workspace) / place / name))
    return (*words, "--data", data.strip()) if data.strip() else words


def candidate(view: View) -> str:
    """TO-BE's release.

    Raises:
        Refused: it is empty, or the figures are old.
    """
    release = live_slots(view).tobe.release
    if release is None:
        raise Refused(_("TO-BE is empty"))
    return release


def reject(view: View, release: str, reason: str) -> tuple[str, ...]:
    """`reject` of the release that was shown.

    Raises:
        Refused: TO-BE holds another one by now.
    """
    if candidate(view) != release:
        raise Refused(_("TO-BE has changed since this was opened: close it and look again"))
    return ("reject", release, "--reason", reason.strip()) if reason.strip() else ("reject", release)
