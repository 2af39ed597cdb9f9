"""What the operator may do next: one sentence from the whole state, the most urgent thing first."""

from __future__ import annotations

from engine.protocol import Health, Next, Run, Slots

_RUN = "python -m engine"
MISSED = 3  # looks that did not come before it is worth a word


def advise(slots: Slots, health: Health, runs: list[Run], *, checkpoints: bool) -> Next:
    """The next step.

    Args:
        runs: the newest runs.
        checkpoints: whether the source has anything that `sync` could take.
    """
    return _trouble(slots, health) or _road(slots, health, runs, checkpoints)


def _trouble(slots: Slots, health: Health) -> Next | None:
    if health.unfinished:
        return Next(action="recover", text=f"a {health.unfinished} was cut short; run: {_RUN} sync")
    for title, word, slot in (("AS-IS", "asis", slots.asis), ("TO-BE", "tobe", slots.tobe)):
        if slot.state == "down" and slot.release is not None:
            return Next(action="serve", text=f"{title} is down; run: {_RUN} serve {word}")
        if slot.state == "down":
            return Next(action="look", text=f"{title}: {slot.problem}")
        if slot.problem:
            return Next(action="look", text=f"{title} does not serve its release: {slot.problem}")
    if health.last_sync and health.last_sync.error:
        return Next(action="look", text=f"the last look failed: {health.last_sync.error}; run: {_RUN} doctor")
    if health.missed_looks >= MISSED:
        count = health.missed_looks
        return Next(
            action="sync", text=f"{count} looks at the source did not come; run: {_RUN} sync, and see cron"
        )
    return None


def _road(slots: Slots, health: Health, runs: list[Run], checkpoints: bool) -> Next:
    asis, tobe, gate = slots.asis.release, slots.tobe.release, health.gate
    training = next((run for run in runs if run.status == "running"), None)
    if tobe is None and asis is None:
        if training:
            return Next(action="wait", text=f"run {training.run} trains; sync takes its best model")
        if checkpoints:
            return Next(action="sync", text=f"deploy the newest checkpoint; run: {_RUN} sync")
        return Next(action="train", text=f"there is no model yet; run: {_RUN} train")
    if tobe is None:
        return Next(action="sync", text=f"TO-BE is empty; run: {_RUN} sync")
    if asis is None:
        return Next(action="force", text=f'AS-IS is empty; run: {_RUN} promote --force --reason "the first model"')
    if asis == tobe:
        if health.held:
            return Next(action="unhold", text=f"TO-BE is held; let it change with: {_RUN} unhold")
        if training:
            return Next(action="wait", text=f"run {training.run} trains; AS-IS serves the newest release")
        return Next(action="none", text="nothing to do: AS-IS serves the newest release")
    if any(lock.name == "compare" for lock in health.locks):
        return Next(action="wait", text="a comparison is running")
    if gate is None:
        return Next(action="compare", text=f"compare both slots; run: {_RUN} ab")
    if gate.open:
        return Next(action="promote", text=f"TO-BE may go to AS-IS; run: {_RUN} promote", images=0)
    if gate.evidence.get("rejected"):
        return Next(action="wait", text=gate.reason)
    if gate.images_missing and gate.evidence.get("n"):
        missing = gate.images_missing
        return Next(
            action="more_images",
            text=f"about {missing:,} more images, then promote; run: {_RUN} ab",
            images=missing,
        )
    if not gate.evidence.get("n"):
        return Next(action="compare", text=f"compare both slots; run: {_RUN} ab")
    return Next(action="wait", text=gate.reason)
