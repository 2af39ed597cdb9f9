"""Why a checkpoint is not admitted: the check that failed, a sentence and the fix. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence


class Refusal(Exception):
    """A checkpoint failed one check.

    Args:
        check: a stable word for the check (`container`, `pickle`, `finite`, `classes`, ...).
        message: what is wrong, one sentence, without the file's name.
        hint: how to mend it.
        dangerous: the file tried to run code when opened; nothing of it was run.
        lasting: the same bytes under the same settings fail again, so the refusal may be remembered.
    """

    def __init__(
        self, check: str, message: str, hint: str, *, dangerous: bool = False, lasting: bool = True
    ) -> None:
        super().__init__(message)
        self.check = check
        self.message = message
        self.hint = hint
        self.dangerous = dangerous
        self.lasting = lasting


def check_task(task: str, expected: str | None) -> None:
    """Refuse another task than AS-IS's, if it has one: the slots of a workspace serve one task.

    Raises:
        Refusal: it is another.
    """
    if expected not in (None, task):
        hint = "give each task a workspace and ports of its own"
        raise Refusal("task", f"is of the task '{task}', AS-IS serves '{expected}'", hint, lasting=False)


def check_classes(classes: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse another class count, other classes or another order than AS-IS answers with.

    Raises:
        Refusal: naming the first class that differs.
    """
    if list(classes) == list(expected):
        return
    hint = 'if that is meant: deploy PATH --new-classes --reason "..."'
    if sorted(classes) == sorted(expected):
        at = next(i for i, (new, old) in enumerate(zip(classes, expected, strict=True)) if new != old)
        what = f"has AS-IS's classes in another order: number {at} is '{classes[at]}', in AS-IS '{expected[at]}'"
    elif len(classes) != len(expected):
        what = f"has {len(classes)} classes, AS-IS has {len(expected)}"
    else:
        at = next(i for i, (new, old) in enumerate(zip(classes, expected, strict=True)) if new != old)
        what = f"has other classes than AS-IS: number {at} is '{classes[at]}', in AS-IS '{expected[at]}'"
    raise Refusal("classes", what, hint)
