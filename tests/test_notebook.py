"""notebooks/colab.ipynb from top to bottom on tiny data, in one child process, without Jupyter and without Colab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOK = PROJECT / "notebooks" / "colab.ipynb"
SMALL = ("latent_dim=16", "layers=1", "num_heads=2", "ff_size=32", "frames=16", "diffusion_steps=20",
         "pos_embed_max_len=32")  # fmt: skip
# The export's proof times each file for many seconds: here a few calls do.
RUN = """
import json, sys
import engine.export.export as export
measured = export.latencies
export.latencies = lambda runners, sample, budget_s: measured(runners, sample, 0.0)
cells = [c for c in json.load(open(sys.argv[1]))["cells"] if c["cell_type"] == "code"]
space = {"__name__": "__main__"}
for number, cell in enumerate(cells):
    exec(compile("".join(cell["source"]), f"cell {number}", "exec"), space)
print("went on after epoch", space["went_on_after"])
"""


def test_it_is_a_notebook_of_format_4_and_holds_no_results() -> None:
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile(source, cell["id"], "exec")  # no magics: it is plain Python


@pytest.mark.long(13)
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    work = tmp_path / "work"
    environment = os.environ | {
        "PYTHONPATH": str(PROJECT),
        "WORK": str(work),
        "EPOCHS": "2",
        "BATCH_SIZE": "8",
        "LEARNING_RATE": "3e-3",
        "SAVE_EVERY_STEPS": "2",
        "NET": " ".join(f"model.settings.{word}" for word in SMALL),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming at epoch 2" in done.stdout
    assert "went on after epoch 1" in done.stdout
    report = json.loads((work / "exported_models" / "export.json").read_text())
    assert [row["format"] for row in report["artifacts"]] == ["onnx", "int8"]
    assert report["data"]["judged"] > 0
    assert np.load(work / "motion.npy").shape == (1, 16, 263)
    with zipfile.ZipFile(work / "exported_models.zip") as bundle:
        assert {"model.onnx", "model_quantized.onnx", "export.json"} <= set(bundle.namelist())
    kept = {path.name for path in (work / "MDM_Checkpoints").glob("*.pt")}
    assert kept == {path.name for path in (work / "checkpoints").glob("*.pt")}
    assert any(name.startswith("checkpoint_epoch2_") for name in kept)
