"""What `analyze` and `export` wrote, as the stream says it: bounded, newest first, damage told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_settings
from engine.errors import Failed
from engine.protocol import Checkpoints, encode
from engine.protocol.messages import Message
from engine.protocol.proof import ANALYSED, EXPORTS
from engine.store.workspace import Workspace
from engine.watch.proofs import Proofs, analysis_path, read_analysis
from engine.watch.sources import CheckpointSource, Partly


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def analysis(count: int) -> dict[str, Any]:
    """As `analyze` writes it: of `count` classes the last one is often taken for the first, every fourth is never wrong."""
    matrix = [[0] * count for _ in range(count)]
    for i in range(count):
        matrix[i][i] = 50
        if i % 4:
            matrix[i][(i + 1) % count] += 2
    matrix[count - 1][0] += 30
    return {
        "checkpoint": "/c/best.pth", "n": 51 * count, "accuracy": 0.9, "f1_macro": 0.88, "ci95": [0.88, 0.92], "data": "/d/val",
        "at": "2026-11-20T18:00:00+09:00", "classes": [f"class {i}" + "x" * 300 for i in range(count)], "matrix": matrix,
        "report": {}, "calibration": {"ece": 0.03, "bins": []}, "failed": [], "excluded": {},
        "confusions": [{"label": f"class {count - 1}", "taken_for": "class 0", "count": 32, "share": 0.39, "images": []}] * 30,
    }  # fmt: skip


def report(name: str, path: Path, **more: Any) -> dict[str, Any]:
    """As `export` writes it."""
    return {
        "release": "ab" * 32, "checkpoint": {"name": name, "sha256": "cd" * 32}, "at": "2026-11-20T18:00:00+09:00",
        "host": {"cpu": "a CPU", "features": [], "threads": 1}, "data": {"shown": "/d/val", "judged": 900},
        "original": {"release": "ab" * 32, "bytes": 4000, "torch": {}, "onnx": {}, "judged": {"accuracy": 0.9}},
        "made_smaller": {"sparsity": 0.3}, "skipped": [{"format": "pt2", "reason": "no" * 500, "path": "model.pt2"}],
        "artifacts": [{
            "format": "int8", "path": str(path), "bytes": 1000, "sha256": "ef" * 32, "size_ratio": 4.0, "latency_ms": 1.5, "latency": {},
            "speedup": 3.5, "speedup_onnx": 2.0, "accuracy": 0.89, "max_abs_error": 0.02,
            "judged": {"n": 900, "accuracy": 0.89, "difference": -0.01, "difference_ci95": [-0.02, 0.0]},
        }],
        **more,
    }  # fmt: skip


def test_an_analysis_of_many_classes_is_cut_to_the_most_confused(workspace: Workspace) -> None:
    path = analysis_path(workspace)
    assert read_analysis(path) is None
    write(path, analysis(120))
    found = read_analysis(path)
    assert found
    assert len(found.classes) == len(found.matrix) == len(found.support) == len(found.confusions) == ANALYSED
    assert found.classes_total == 120
    assert found.classes[0].startswith("class 0x")
    assert found.classes[-1].startswith("class 119x")
    assert (found.matrix[-1][0], found.support[-1]) == (32, 82)
    assert not any(name.startswith(("class 4x", "class 8x")) for name in found.classes), (
        "those that are hardly wrong"
    )
    assert all(sum(row) <= total for row, total in zip(found.matrix, found.support, strict=True))
    message = Message(v=1, seq=1, at="", host="here", kind="checkpoints", data=Checkpoints(analysis=found))
    assert len(encode(message)) < 16_000


def test_few_classes_are_kept_whole(workspace: Workspace) -> None:
    write(analysis_path(workspace), analysis(3))
    found = Proofs(workspace).analysis()
    assert found
    assert (found.matrix, found.support, found.ece) == ([[50, 0, 0], [0, 50, 2], [32, 0, 50]], [50, 52, 82], 0.03)


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"classes": ["a"], "matrix": [[1, 2]]}', '{"classes": ["a"], "matrix": [["x"]]}']
)
def test_a_damaged_analysis_is_told_and_hides_no_checkpoint(workspace: Workspace, damage: str) -> None:
    write(analysis_path(workspace), damage)
    with pytest.raises(Failed, match="latest"):
        read_analysis(analysis_path(workspace))
    with pytest.raises(Partly) as partly:
        CheckpointSource(workspace, load_settings(None, workspace.root).settings).look()
    assert set(partly.value.problems) == {"analysis"}
    assert isinstance(partly.value.data["checkpoints"], Checkpoints)


def test_exports_are_read_when_they_change(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    proofs, root = Proofs(workspace), workspace.root / "exports"
    assert proofs.exports() == []
    for number in range(EXPORTS + 3):
        folder = root / f"{number:02d}"
        write(folder / "export.json", report(f"{number}.pth", folder / "model_quantized.onnx"))
        write(folder / "model_quantized.onnx", "")
        os.utime(folder / "export.json", (number, number))
    write(root / "under way" / "steps.json", {})
    write(root / "a file", "")
    found = proofs.exports()
    assert [one.checkpoint for one in found] == [f"{number}.pth" for number in range(EXPORTS + 2, 2, -1)]
    newest = found[0]
    assert (newest.sparsity, newest.accuracy, newest.bytes, newest.threads) == (0.3, 0.9, 4000, 1)
    (file,) = newest.files
    assert (file.format, file.size_ratio, file.n, file.difference, file.present) == ("int8", 4.0, 900, -0.01, True)
    assert len(newest.skipped[0].reason) < 200
    monkeypatch.setattr("engine.watch.proofs.read_export", lambda folder: pytest.fail(f"{folder} was read again"))
    assert proofs.exports() == found
    monkeypatch.undo()
    Path(file.path).unlink()
    assert not proofs.exports()[0].files[0].present, "it was not worth having"
    write(root / "22" / "export.json", "{")
    assert "damaged" in str(proofs.exports()[0].problem)
    write(root / "22" / "export.json", {"release": 1})
    assert "damaged" in str(proofs.exports()[0].problem)
