"""The documents' places, names and priority, as a pure function over listings."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoints.naming import COMBINED, Choice, Entry, choose, folder_cycle, next_cycle

NOW = 1_770_000_000.0


def listing(*items: tuple[str, float], size: int = 5_000_000) -> Choice:
    return choose([Entry(path, size, NOW + age) for path, age in items], NOW)


def reasons(choice: Choice) -> dict[str, str]:
    return {item["path"]: item["reason"] for item in choice.skipped}


def test_the_newest_of_the_three_names_in_any_cycle_wins() -> None:
    choice = listing(
        ("checkpoints_cycle1/best_model_cycle1.pth", -300),
        ("checkpoints_cycle2/best_model.pth", -100),
        ("checkpoints_cycle3/LiteCNNPro_best.pth", -200),
    )
    assert [(item.path, item.cycle) for item in choice.candidates] == [
        ("checkpoints_cycle2/best_model.pth", 2),
        ("checkpoints_cycle3/LiteCNNPro_best.pth", 3),
        ("checkpoints_cycle1/best_model_cycle1.pth", 1),
    ]
    assert reasons(choice) == {
        "checkpoints_cycle3/LiteCNNPro_best.pth": "older than checkpoints_cycle2/best_model.pth",
        "checkpoints_cycle1/best_model_cycle1.pth": "older than checkpoints_cycle2/best_model.pth",
    }
    assert choice.warnings == []


def test_the_combined_one_goes_first_and_a_newer_cycle_behind_it_is_pointed_out() -> None:
    choice = listing((COMBINED, -500), ("checkpoints_cycle8/best_model.pth", -10))
    assert choice.candidates[0].path == COMBINED
    assert choice.candidates[0].cycle is None
    assert reasons(choice)["checkpoints_cycle8/best_model.pth"].startswith("newer than it, but behind")
    assert "checkpoints_cycle8/best_model.pth is newer" in choice.warnings[0]
    gone = listing(("checkpoints_cycle8/best_model.pth", -10))
    assert gone.candidates[0].cycle == 8


def test_cycles_are_numbers_and_decide_ties() -> None:
    choice = listing(
        ("checkpoints_cycle9/best_model_cycle9.pth", -60), ("checkpoints_cycle10/best_model_cycle10.pth", -60)
    )
    assert [item.cycle for item in choice.candidates] == [10, 9]
    assert "same time" in choice.warnings[0]
    assert "higher cycle" in reasons(choice)["checkpoints_cycle9/best_model_cycle9.pth"]


def test_a_tie_within_a_cycle_goes_by_name_without_a_warning() -> None:
    choice = listing(
        ("checkpoints_cycle2/LiteCNNPro_best.pth", -5),
        ("checkpoints_cycle2/best_model.pth", -5),
        ("checkpoints_cycle2/best_model_cycle2.pth", -5),
    )
    assert [item.path.rsplit("/", 1)[1] for item in choice.candidates] == [
        "best_model_cycle2.pth",
        "best_model.pth",
        "LiteCNNPro_best.pth",
    ]
    assert choice.warnings == []


def test_a_time_in_the_future_is_not_believed_the_higher_cycle_wins() -> None:
    lower = listing(("checkpoints_cycle9/best_model.pth", 3600), ("checkpoints_cycle10/best_model.pth", -60))
    assert [item.cycle for item in lower.candidates] == [10, 9]
    assert "in the future" in reasons(lower)["checkpoints_cycle9/best_model.pth"]
    assert "60 min in the future" in lower.warnings[0]
    higher = listing(("checkpoints_cycle10/best_model.pth", 3600), ("checkpoints_cycle9/best_model.pth", -60))
    assert [item.cycle for item in higher.candidates] == [10, 9]
    both = listing(("checkpoints_cycle3/best_model.pth", 9000), ("checkpoints_cycle4/best_model.pth", 3600))
    assert [item.cycle for item in both.candidates] == [4, 3]


def test_a_few_minutes_ahead_are_believed() -> None:
    choice = listing(("checkpoints_cycle1/best_model.pth", 240), ("checkpoints_cycle2/best_model.pth", 0))
    assert choice.candidates[0].cycle == 1
    assert choice.warnings == []


def test_every_file_that_is_passed_over_has_its_reason() -> None:
    choice = listing(
        ("checkpoints_cycle2/best_model_cycle3.pth", 0),
        ("checkpoints_cycle2/checkpoint_epoch50.pth", 0),
        ("checkpoints_cycle2/checkpoint_epoch10_step5000.pt", 0),
        ("checkpoints_cycle2/model_v2.pth", 0),
        ("checkpoints_cycle2/notes.txt", 0),
        ("checkpoints_cycle2/.best_model.pth.x1.part", 0),
        ("checkpoints_combined/best_model.pth", 0),
        ("checkpoints_old/best_model.pth", 0),
        ("models/LiteCNNPro_best.pth", 0),
        ("my_model_final.pth", 0),
    )
    assert choice.candidates == []
    found = reasons(choice)
    assert found["checkpoints_cycle2/best_model_cycle3.pth"] == "named for cycle 3, but lies in cycle 2's folder"
    assert "intermediate" in found["checkpoints_cycle2/checkpoint_epoch50.pth"]
    assert "intermediate" in found["checkpoints_cycle2/checkpoint_epoch10_step5000.pt"]
    assert "best_model_cycle2.pth" in found["checkpoints_cycle2/model_v2.pth"]
    assert found["checkpoints_cycle2/notes.txt"] == "not a checkpoint file"
    assert "unfinished" in found["checkpoints_cycle2/.best_model.pth.x1.part"]
    assert "only LiteCNNPro_best.pth" in found["checkpoints_combined/best_model.pth"]
    assert "in checkpoints_old/" in found["checkpoints_old/best_model.pth"]
    assert "in models/" in found["models/LiteCNNPro_best.pth"]
    assert "not in checkpoints_combined" in found["my_model_final.pth"]


def test_a_candidate_that_cannot_be_read_says_so() -> None:
    choice = choose([Entry("checkpoints_cycle4/best_model.pth", 10, NOW, "cannot be read (denied)")], NOW)
    assert choice.candidates[0].problem == "cannot be read (denied)"
    closed = choose([Entry("checkpoints_cycle4/", 0, 0.0, "cannot be listed (denied)")], NOW)
    assert closed.skipped == [{"path": "checkpoints_cycle4/", "reason": "cannot be listed (denied)"}]


def test_names_that_would_upset_a_terminal_are_escaped() -> None:
    choice = choose([Entry("models/a\x1b[2J\udcff.pth", 1, NOW)], NOW)
    assert choice.skipped[0]["path"] == "models/a\\x1b[2J\\udcff.pth"


def test_folder_numbers() -> None:
    assert folder_cycle("checkpoints_cycle12") == 12
    assert folder_cycle("checkpoints_cycle12b") is None
    assert folder_cycle("checkpoints_combined") is None
    assert next_cycle(["checkpoints_cycle9", "checkpoints_cycle10", "data"]) == 11
    assert next_cycle([]) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["best_model.pth", "LiteCNNPro_best.pth", "x.pth"]),
                  st.integers(-5, 5).map(lambda step: step * 200.0)),
        unique_by=lambda item: item[:2],
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_order_of_the_listing_does_not_matter_and_nothing_is_lost(
    files: list[tuple[int, str, float]], shuffled: random.Random
) -> None:
    items = [(f"checkpoints_cycle{cycle}/{name}", age) for cycle, name, age in files]
    first = listing(*items)
    shuffled.shuffle(items)
    second = listing(*items)
    assert first == second
    seen = {item.path for item in first.candidates[:1]} | set(reasons(first))
    assert seen == {path for path, _ in items}
    assert len(first.candidates[:1]) + len(first.skipped) == len(items)
