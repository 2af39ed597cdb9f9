"""Labels of live requests: the order, what counts, what the gate makes of it, and the verb."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine.compare import statistics as st
from engine.compare.deciding import Rule
from engine.compare.gate import gate
from engine.compare.labels import Labels, read_live, shadow_state
from engine.compare.shadow import (
    Item,
    Keeper,
    Said,
    drop_old,
    image_path,
    item_id,
    pair_folder,
    read_counts,
    read_items,
    write_counts,
)
from engine.config import Settings
from engine.config.schema import Shadow
from engine.store.clock import timestamp
from engine.store.files import write_json
from engine.store.workspace import Workspace
from tests.compare.test_differing import picture
from tests.compare.test_gate import compared
from tests.conftest import Result
from tests.release.bundles import make_release, put

KEEP = Shadow(share=1.0, keep=True)


@pytest.fixture
def pair(workspace: Workspace) -> dict[str, str]:
    """Two real small releases of cats and dogs in the slots."""
    ids = {}
    for slot, name in (("asis", "old"), ("tobe", "new")):
        release = make_release(workspace, name)
        put(workspace, slot, release)
        ids[slot] = release.id
    return ids


def mirror(workspace: Workspace, pair: dict[str, str], count: int, agreed: int = 0, start: int = 0) -> list[str]:
    """`count` differing requests that AS-IS calls cat and TO-BE dog, and so many agreeing ones; their ids."""
    counts = read_counts(workspace, pair["asis"], pair["tobe"])
    keeper, made = Keeper(workspace, KEEP), []
    for number in range(start, start + count):
        image = picture((4, 4), (number % 256, number // 256, 7))
        sha256 = hashlib.sha256(image).hexdigest()
        item = Item(item_id(sha256), sha256, timestamp(), len(image), Said("cat", 0.6), Said("dog", 0.7))
        counts.kept += keeper.keep(pair["asis"], pair["tobe"], item, image) is True
        made.append(item.id)
    counts.differed += count
    counts.agreed += agreed
    write_counts(workspace, counts)
    return made


def marked(workspace: Workspace, pair: dict[str, str], *names: str | None) -> Labels:
    """Label the first waiting requests, in their order."""
    labels = Labels(workspace, pair["asis"], pair["tobe"])
    labels.draw()
    for item, name in zip(labels.waiting, names, strict=False):
        labels.mark(item, name)
    return Labels(workspace, pair["asis"], pair["tobe"])


def test_labels_are_the_discordant_pairs_they_are(workspace: Workspace, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 10, agreed=90)
    live = marked(workspace, pair, "dog", "dog", "dog", "cat", "bird", None).live()
    assert (live.b, live.c, live.neither, live.skipped, live.waiting) == (3, 1, 1, 1, 4)
    assert (live.labelled, live.mirrored, live.differed) == (5, 100, 10)
    assert live.weight == 50
    assert live.difference() == st.two_phase_difference(3, 1, 5, 10, 100)
    assert live.difference()[0] == pytest.approx(0.1 * 2 / 5)  # type: ignore[index]
    assert read_live(workspace, pair["asis"], pair["tobe"]) == live
    assert shadow_state(workspace, 0.2, pair["asis"], pair["tobe"]) == {
        "share": 0.2, "mirrored": 100, "agreed": 90, "differed": 10, "failed": 0, "queued": 4, "labelled": 5,
    }  # fmt: skip


def test_a_label_out_of_turn_counts_when_its_turn_has_come(workspace: Workspace, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 6)
    labels = marked(workspace, pair)
    first, second, third = labels.waiting[:3]
    labels.mark(third, "dog")
    labels.mark(second, "dog")
    assert (labels.live().labelled, labels.live().out_of_turn) == (0, 2)
    labels.mark(first, "cat")
    assert (labels.live().b, labels.live().c, labels.live().out_of_turn) == (2, 1, 0)


def test_what_came_later_is_drawn_behind_what_was_drawn(workspace: Workspace, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 5)
    labels = marked(workspace, pair, "dog")
    before = [item.id for item in labels.waiting]
    mirror(workspace, pair, 60, start=5)
    after = marked(workspace, pair)
    assert [item.id for item in after.waiting][:4] == before
    assert len(after.order) == 65
    drawn = after.order[5:]
    assert drawn != sorted(drawn)
    assert Labels(workspace, pair["asis"], pair["tobe"]).order == after.order


def test_a_later_word_on_a_request_replaces_the_earlier(workspace: Workspace, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 2)
    labels = marked(workspace, pair, "dog", "dog")
    item = labels.items[labels.order[0]]
    labels.mark(item, "cat")
    assert (labels.live().b, labels.live().c) == (1, 1)
    labels.mark(item, None)
    assert (labels.live().labelled, labels.live().skipped) == (1, 1)
    assert len(labels.path.read_text().splitlines()) == 5


def test_what_is_deleted_unlabelled_counts_as_passed_over(workspace: Workspace, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 3)
    labels = marked(workspace, pair)
    labels.mark(labels.waiting[2], "dog")
    assert drop_old(workspace, 30) == 0
    assert drop_old(workspace, 0) == 3
    assert not list((workspace.root / "shadow").glob("*/items/*"))
    live = read_live(workspace, pair["asis"], pair["tobe"])
    assert (live.b, live.skipped, live.waiting) == (1, 2, 0)
    assert live.reversible


def test_what_a_crash_cut_short_was_never_said(workspace: Workspace, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 3)
    labels = marked(workspace, pair, "dog")
    with labels.path.open("a") as stream:
        stream.write('{"kind": "label", "id"')
    again = Labels(workspace, pair["asis"], pair["tobe"])
    assert again.live().labelled == 1
    again.mark(again.waiting[0], "dog")
    assert Labels(workspace, pair["asis"], pair["tobe"]).live().b == 2


def test_the_queue_is_bounded_private_and_holds_an_image_once(workspace: Workspace, pair: dict[str, str]) -> None:
    image = picture((4, 4))
    sha256 = hashlib.sha256(image).hexdigest()
    item = Item(item_id(sha256), sha256, timestamp(), len(image), Said("cat", 0.5), Said("dog", 0.5))
    bounds = Shadow(keep=True, keep_images=1)
    assert Keeper(workspace, bounds).keep(pair["asis"], pair["tobe"], item, image) is True
    assert Keeper(workspace, bounds).keep(pair["asis"], pair["tobe"], item, image) is None
    other = Item("f" * 12, "f" * 64, timestamp(), 1, Said("cat", 0.5), Said("dog", 0.5))
    assert Keeper(workspace, bounds).keep(pair["asis"], pair["tobe"], other, b"1") is False
    assert Keeper(workspace, Shadow(keep_bytes=1024)).keep(pair["asis"], pair["tobe"], other, bytes(2000)) is False
    assert read_items(workspace, pair["asis"], pair["tobe"]) == {item.id: item}
    for path in (workspace.root / "shadow").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((workspace.root / "shadow").stat().st_mode) == 0o700


def gated(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    return gate(workspace, settings)


def test_labels_alone_open_the_gate_and_it_says_so(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    mirror(workspace, pair, 60, agreed=1940)
    marked(workspace, pair, *["dog"] * 24, *["cat"] * 4)
    answer = gated(workspace, settings)
    assert st.e_value(24, 4) > 20
    assert (answer["open"], answer["ab"]) == (True, None)
    assert answer["evidence"]["opened_by"] == ["live"]
    assert answer["evidence"]["live"]["labelled"] == 28
    assert "28 labelled of 60 differing live requests" in answer["reason"]


def test_the_e_values_of_set_and_live_requests_multiply(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=22, c=10, n=400)
    first = st.e_value(22, 10)
    assert not (first >= 20)
    mirror(workspace, pair, 40, agreed=960)
    marked(workspace, pair, *["dog"] * 12, *["cat"] * 3)
    second = st.e_value(12, 3)
    answer = gated(workspace, settings)
    assert answer["evidence"]["e_value"] == pytest.approx(first * second)
    assert answer["open"] == (first * second >= 20)
    assert answer["evidence"]["opened_by"] == (["labelled_set", "live"] if answer["open"] else [])
    assert f"= {first:.3g} of the set x {second:.3g} live" in answer["reason"]


def test_kinds_of_evidence_that_contradict_each_other_do_not_open_it(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=90, c=20, n=1000)
    assert gated(workspace, settings)["open"]
    mirror(workspace, pair, 40, agreed=960)
    marked(workspace, pair, *["cat"] * 12, *["dog"] * 2)
    answer = gated(workspace, settings)
    assert not answer["open"]
    assert "contradict each other" in answer["reason"]


def test_a_lead_that_those_passed_over_could_reverse_does_not_open_it(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    mirror(workspace, pair, 60, agreed=1940)
    marked(workspace, pair, *["dog"] * 24, *["cat"] * 4, *[None] * 20)
    answer = gated(workspace, settings)
    assert not answer["open"]
    assert "20 live requests were passed over" in answer["reason"]


def test_a_rollback_asks_for_labels_of_later_requests(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    mirror(workspace, pair, 60, agreed=1940)
    marked(workspace, pair, *["dog"] * 24)
    assert gated(workspace, settings)["open"]
    write_json(workspace.state / "taken_down.json", {pair["tobe"]: timestamp()})
    answer = gated(workspace, settings)
    assert not answer["open"]
    assert "was rolled back from AS-IS" in answer["reason"]


def test_damaged_labels_close_it(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    mirror(workspace, pair, 3)
    labels = marked(workspace, pair, "dog")
    labels.path.write_text("{\n" + labels.path.read_text())
    answer = gated(workspace, settings)
    assert not answer["open"]
    assert "is damaged" in answer["reason"]


def test_the_verb_lists_shows_labels_skips_and_imports(
    workspace: Workspace, pair: dict[str, str], engine: Callable[..., Result], tmp_path: Path
) -> None:
    mirror(workspace, pair, 8, agreed=92)
    listed = engine("label", "--json").json
    first, second, third, fourth, *more = [item["id"] for item in listed["items"]]
    assert listed["live"]["waiting"] == 8
    assert {answer["label"] for answer in listed["items"][0]["answers"]} == {"cat", "dog"}
    assert not {"asis", "tobe"} & listed["items"][0].keys()

    shown = engine("label", "--show", first, "--width", "4", "--json").json
    assert (shown["width"], shown["height"], shown["label"]) == (4, 4, None)
    assert Path(shown["path"]) == image_path(workspace, pair["asis"], pair["tobe"], first)
    assert f"file: {shown['path']}" in engine("label", "--show", first[:6]).out

    assert "next: label" in engine("label", first, "dog").out
    assert engine("label", "--skip", second, "--json").json["live"]["skipped"] == 1
    assert engine("label", "--neither", third, "--json").json["live"]["neither"] == 1
    rows = tmp_path / "labels.csv"
    rows.write_text("id,label\n" + "".join(f"{one},dog\n" for one in more))
    done = engine("label", "--import", str(rows), "--json").json
    assert (len(done["labelled"]), done["next"], done["live"]["out_of_turn"]) == (4, fourth, 4)
    done = engine("label", fourth, "cat", "--json").json["live"]
    assert (done["tobe_only"], done["asis_only"], done["neither"], done["skipped"]) == (5, 1, 1, 1)
    assert done["waiting"] == 0
    people = engine("label").out
    assert "of 100 mirrored requests the two differ on 8 (8.00%); 7 labelled, 1 passed over, 0 wait" in people


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{id}", "dgo"), "did you mean 'dog'"),
        (("{id}",), "is missing"),
        (("feed", "dog"), "no request that is kept"),
        (("--show", "{id}", "--skip", "{id}"), "one thing at a time"),
        (("--import", "/no/such.csv"), "cannot read"),
    ],
)
def test_wrong_usage_changes_nothing(
    workspace: Workspace, pair: dict[str, str], engine: Callable[..., Result], words: tuple[str, ...], said: str
) -> None:
    identity = mirror(workspace, pair, 1)[0]
    done = engine("label", *(word.format(id=identity) for word in words))
    assert done.code == 2
    assert said in done.err
    assert not (pair_folder(workspace, pair["asis"], pair["tobe"]) / "labels.jsonl").exists()


def test_without_two_releases_there_is_nothing_to_label(engine: Callable[..., Result]) -> None:
    done = engine("label")
    assert done.code == 2
    assert "nothing to label" in done.err


# the statistics of it --------------------------------------------------------------------------------


@given(some.integers(0, 200), some.integers(0, 200), some.integers(0, 50), some.integers(0, 2000))
def test_with_every_differing_request_labelled_the_interval_is_bonett_and_prices(
    b: int, c: int, neither: int, agreed: int
) -> None:
    labelled = b + c + neither
    if not labelled:
        return
    found, low, high = st.two_phase_difference(b, c, labelled, labelled, labelled + agreed)
    assert found == pytest.approx((b - c) / (labelled + agreed))
    assert (low, high) == pytest.approx(st.difference_interval(b, c, labelled + agreed), abs=1e-12)


@given(
    some.integers(0, 60), some.integers(0, 60), some.integers(0, 30), some.integers(0, 500), some.integers(0, 9000)
)
def test_the_two_phase_interval_mirrors_itself_and_holds_its_middle(
    b: int, c: int, neither: int, unlabelled: int, agreed: int
) -> None:
    labelled = b + c + neither
    if not labelled:
        return
    differing = labelled + unlabelled
    found, low, high = st.two_phase_difference(b, c, labelled, differing, differing + agreed)
    mirrored = st.two_phase_difference(c, b, labelled, differing, differing + agreed)
    assert mirrored == pytest.approx((-found, -high, -low))
    assert -1 <= low <= high <= 1
    assert (low + high) / 2 * found >= 0 or min(abs(low), abs(high)) == 1


@pytest.mark.parametrize("counts", [(0, 0, 0, 5, 10), (3, 3, 5, 9, 10), (1, 1, 9, 5, 10), (1, 1, 2, 11, 10)])
def test_impossible_counts_are_an_error(counts: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        st.two_phase_difference(*counts)


@pytest.mark.parametrize(("tau", "share"), [(0.0, 0.2), (0.3, 0.1), (-0.6, 0.5)])
def test_the_two_phase_interval_covers_the_true_gap(tau: float, share: float) -> None:
    random, psi, mirrored, trials = np.random.default_rng(17), 0.06, 5000, 1500
    cells = [0.4 + tau / 2, 0.4 - tau / 2, 0.2]
    covered = 0
    for _ in range(trials):
        differing = int(random.binomial(mirrored, psi))
        labelled = max(1, int(share * differing))
        b, c, _ = (int(x) for x in random.multinomial(labelled, cells))
        _, low, high = st.two_phase_difference(b, c, labelled, differing, mirrored)
        covered += low <= psi * tau <= high
    assert covered / trials == pytest.approx(0.95, abs=0.025)


def test_set_and_live_evidence_together_looked_at_after_every_image_errs_less_than_alpha() -> None:
    random, trials, opened = np.random.default_rng(29), 150, 0
    rule = Rule(0.05, None, 100)
    for _ in range(trials):
        ours, theirs = np.cumsum(random.choice([0, 1], size=(2, 300)), axis=1)
        places = np.arange(1, 301)
        opened += any(
            rule.winner(int(x), int(n - x), 10 * int(n), int(y), int(n - y), 20.0 * int(n)) is not None
            for n, x, y in zip(places, ours, theirs, strict=True)
        )
    assert opened / trials < 0.05
