"""docs/faults.md: every row has a test that proves it, and names the tests there are."""

from tests.fault_table import TABLE, proofs, rows, written


def test_every_row_has_a_test_that_proves_it() -> None:
    assert set(rows(TABLE.read_text(encoding="utf-8"))) == set(range(1, 56))
    assert set(range(1, 56)) == set(proofs())


def test_the_document_names_the_tests_there_are() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert written(text) == text, "run: python -m tests.fault_table"
