"""The fault table of docs/faults.md: each row's fault, its right outcome, and the tests that prove it.

A test proves row N by the marker `@pytest.mark.fault(N)`, on itself, its class or its module (`pytestmark`).
`python -m tests.fault_table` writes the tests' column anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent
TABLE = TESTS.parent / "docs" / "faults.md"
_ROW = re.compile(r"^\| (\d+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$")


def proofs(folder: Path = TESTS) -> dict[int, list[str]]:
    """Row number -> `file::test` of every test that is marked with it, in order."""
    found: dict[int, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        whole = [
            row
            for node in tree.body
            if isinstance(node, ast.Assign) and any(_named(target, "pytestmark") for target in node.targets)
            for row in _rows(node.value)
        ]
        for name, rows in _marked(tree.body, whole):
            for row in rows:
                found.setdefault(row, []).append(f"{path.relative_to(folder).as_posix()}::{name}")
    return found


def _marked(body: list[ast.stmt], inherited: list[int], prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            rows = [row for decorator in node.decorator_list for row in _rows(decorator)]
            yield from _marked(node.body, inherited + rows, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            rows = [row for decorator in node.decorator_list for row in _rows(decorator)]
            yield prefix + node.name, sorted({*inherited, *rows})


def _rows(node: ast.AST) -> list[int]:
    """The numbers of every `pytest.mark.fault(...)` within an expression."""
    return [
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "fault"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    ]


def _named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def rows(text: str) -> dict[int, tuple[str, str, str]]:
    """Row number -> fault, right outcome, tests, as the document says."""
    found = (_ROW.match(line) for line in text.splitlines())
    return {int(row[1]): (row[2], row[3], row[4]) for row in found if row}


def written(text: str) -> str:
    """The document with the tests' column as the tests stand now."""
    known = proofs()

    def line(row: re.Match[str]) -> str:
        tests = "<br>".join(f"`{test}`" for test in known.get(int(row[1]), [])) or "–"
        return f"| {row[1]} | {row[2]} | {row[3]} | {tests} |"

    return "\n".join(_ROW.sub(line, one) for one in text.splitlines()) + "\n"


if __name__ == "__main__":
    TABLE.write_text(written(TABLE.read_text(encoding="utf-8")), encoding="utf-8")
