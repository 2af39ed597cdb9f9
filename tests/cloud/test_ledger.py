"""The ledger: cost to the second, never less than the bill; pages survive and damaged ones are not passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.cloud.ledger import Entry, Ledger
from engine.cloud.money import budget_alert, stop_at
from engine.cloud.provider import Job, Machine, MachineState
from engine.config.schema import Cloud
from engine.errors import Busy, Failed, UsageError
from engine.store.workspace import Workspace

HOUR = 3600.0


def entry(name: str = "box", budget: float | None = 5.0) -> Entry:
    job = Job(
        name, ("train", "training.epochs=5"), Path("/code"), ((Path("/photos"), "data/photos"),), gpu="RTX 4090"
    )
    return Entry(name, "skypilot", job, 0.72, budget, 1000.0)


def test_an_entry_comes_back_from_its_file_as_it_was(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    machine = Machine("box", "skypilot", "box", "~/understudy", 0.72, facts={"priced": True})
    whole = replace(entry().begun(1000.0), machine=machine, told=("50",)).seen(MachineState("running"), 1010.0)
    ledger.create(whole)
    assert ledger.read("box") == whole
    assert [one.name for one in ledger.entries()] == ["box"]


def test_cost_is_counted_to_the_second_and_stops_when_nothing_is_paid_for() -> None:
    running = entry().begun(1000.0)
    assert running.cost_usd(1000.0 + 100) == pytest.approx(0.72 / 36)
    stopped = running.seen(MachineState("stopped"), 1000.0 + HOUR)
    assert stopped.cost_usd(1000.0 + 9 * HOUR) == pytest.approx(0.72)
    again = stopped.begun(1000.0 + 2 * HOUR, 0.36)
    assert again.cost_usd(1000.0 + 4 * HOUR) == pytest.approx(0.72 + 0.72)
    assert again.priced(0.1).cost_usd(1000.0 + 4 * HOUR) == pytest.approx(0.72 + 0.2)


def test_a_machine_that_cannot_be_asked_is_counted_and_one_empty_list_proves_nothing() -> None:
    running = entry().begun(0.0)
    for state in (MachineState("unknown"), MachineState("gone")):
        assert running.seen(state, HOUR).cost_usd(2 * HOUR) == pytest.approx(1.44)
    gone = running.seen(MachineState("gone"), HOUR).seen(MachineState("gone"), 1.5 * HOUR)
    assert gone.cost_usd(9 * HOUR) == pytest.approx(1.08)


def test_the_end_is_the_reserve_before_the_budget_and_counts_what_was_spent() -> None:
    cloud = Cloud(reserve_minutes=5)
    assert stop_at(entry(budget=0.72), cloud, 1000.0) == pytest.approx(1000.0 + HOUR - 300)
    half = entry(budget=0.72).begun(0.0).paused(HOUR / 2)
    assert stop_at(half, cloud, 10 * HOUR) == pytest.approx(10.5 * HOUR - 300)
    assert stop_at(entry(budget=None), cloud, 0.0) is None


def test_each_mark_of_the_budget_is_told_once_and_only_the_highest() -> None:
    assert budget_alert(0.49, ()) is None
    assert budget_alert(0.5, ()) == "50"
    assert budget_alert(0.5, ("50",)) is None
    assert budget_alert(1.2, ("50",)) == "100"
    assert budget_alert(0.85, ("100",)) is None


def test_a_name_is_taken_while_its_machine_may_cost_money(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    ledger.create(entry())
    with pytest.raises(Busy, match="cloud down box"):
        ledger.create(entry())
    with ledger.change("box") as box:
        box[0] = box[0].closed(2000.0)
    ledger.create(entry())
    assert [one.closed_at for one in ledger.past()] == [2000.0]
    with pytest.raises(UsageError, match="box"):
        ledger.read("bax")
    with pytest.raises(UsageError, match="name"):
        ledger.create(entry("../box"))


def test_a_damaged_page_is_an_error_not_a_machine_that_nobody_knows(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    ledger.create(entry())
    (ledger.folder / "box.json").write_text("{}")
    with pytest.raises(Failed, match="damaged"):
        ledger.entries()
