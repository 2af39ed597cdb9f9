"""Rented machines on the screen: what they cost at this second, when they end, and what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from console import words
from console.orders import Refused
from console.panes import cloud, devices
from console.sheets import findings
from console.view import View
from engine.protocol import Cloud, parse
from tests.console.test_panes import shown, view

GOLDEN = Path(__file__).parents[1] / "protocol" / "golden" / "cloud.jsonl"


@pytest.fixture
def rented() -> View:
    """A screen with two machines that cost money and one that is gone, at 18:30."""
    found = view("evening")
    message = parse(GOLDEN.read_text())
    assert isinstance(message.data, Cloud)
    found.now = cloud.text.moment(message.at) or 0.0
    found.store.apply(replace(message, host=str(found.store.home)), found.now)
    return found


def test_the_cost_goes_on_between_two_messages(rented: View) -> None:
    machine = cloud.known(rented)[0]
    assert cloud.cost(rented, machine) == pytest.approx(0.12 + 1.5 * 0.36)
    rented.now += 3600
    assert cloud.cost(rented, machine) == pytest.approx(0.12 + 2.5 * 0.36)


def test_the_sheet_says_cost_budget_gpu_time_and_what_is_wrong(rented: View) -> None:
    said = shown(findings.cloud_rows(rented, 120))
    for part in (
        "$0.6600 of $5.00",
        "$0.36 an hour",
        "93%",
        "18.0/24 GiB",
        "epoch 23/50",
        "in 10 h at the latest",
    ):
        assert part in said, part
    assert "nothing has worked there for 1 h" in said
    assert "no guard" in said
    assert "$0.7500" in said
    assert "the training is done" in said


@pytest.mark.parametrize("language", ["en", "ko"])
def test_machines_that_cost_money_stand_below_the_devices(rented: View, language: str) -> None:
    words.choose(language)
    try:
        for width in (24, 40, 90, 140):
            for height in (2, 4, 12, 30):
                rows = devices.draw(rented, width, height)
                assert len(rows) <= height
                assert all(row.at <= width for row in rows)
        last = shown(devices.draw(rented, 110, 30)).splitlines()[-2:]
        assert [line.split()[1] for line in last] == ["train-2", "train-1"]  # which is idle
    finally:
        words.choose("en")


def test_what_needs_a_person_is_named_first_and_nothing_is_cut_off(rented: View) -> None:
    lines = [row.spans[1][0] for row in cloud.below(rented, 37, 1)]
    assert lines == ["and 2 more"]
    rows = cloud.below(rented, 37, 2)
    assert len(rows) == 2
    found = cloud.known(rented)
    found[1] = replace(found[1], state="unknown", name="train-2-with-a-long-name", why="no answer " * 20)
    first = shown(cloud.below(rented, 40, 4)).splitlines()[0]
    assert first.startswith("$ train-2-with-a-…")
    assert "of $5.00" in first
    said = shown(findings.cloud_rows(rented, 60))
    assert said.count("no answer") == 20
    assert "counted as running" in said
    assert said.startswith("together")


def test_without_a_machine_the_sheet_says_how_to_get_one() -> None:
    with pytest.raises(Refused, match="cloud plan"):
        findings.cloud_rows(view("evening"), 100)
