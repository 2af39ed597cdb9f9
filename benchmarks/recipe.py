"""Accuracy of the recipe from nothing: photographs of clothing, and the synthetic document set.

    python -m benchmarks.recipe [--json] [--clothing DIR] [--documents [DIR]] [--model litecnn] [--keep DIR] [words...]

Words such as `training.epochs=100` go to both trainings. Targets on two CPU cores: clothing at 128 px, validation
accuracy at least 0.80 within 900 s; documents at 160 px, macro-F1 at least 0.99 within 900 s. The document set is
drawn by `python -m engine documents` and says nothing of real documents.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CLOTHING = ("data=photos", "data.train_size=112", "training=from_scratch")
DOCUMENTS = ("data=transformer_384", "data.img_size=160", "training.epochs=12", "training.learning_rate=0.006")
LIMIT_S = 900.0


def main(argv: list[str] | None = None) -> None:
    """Train, print a line for each set, and with --json one object `{"results": [...]}`.

    `cpu_s` is the processor time of the training over two cores: what it takes where nothing else runs.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clothing", type=Path, metavar="DIR", help="train/ and val/ of class folders")
    parser.add_argument("--documents", type=Path, metavar="DIR", help="a set drawn before (default: draw one)")
    parser.add_argument("--no-documents", action="store_true")
    parser.add_argument("--model", default="litecnn")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="the workspace, kept (default: a scratch one)")
    parser.add_argument("words", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = arguments.keep or Path(folder)
        if arguments.clothing:
            words = (*CLOTHING, f"data.root={arguments.clothing}", f"model={arguments.model}", *arguments.words)
            results.append(_measured("clothing", "accuracy", 0.80, _train(workspace, words)))
            _print(results[-1], arguments.json)
        if not arguments.no_documents:
            root = arguments.documents or workspace / "documents"
            if arguments.documents is None:
                _run(workspace, "documents", str(root))
            words = (*DOCUMENTS, f"data.root={root}", f"model={arguments.model}", *arguments.words)
            results.append(_measured("documents (synthetic)", "f1_macro", 0.99, _train(workspace, words)))
            _print(results[-1], arguments.json)
    if arguments.json:
        print(json.dumps({"results": results}))


def _train(workspace: Path, words: tuple[str, ...]) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(_run(workspace, "train", *words, "--json"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    best = {key: result["best"][key] for key in ("accuracy", "f1_macro", "epoch")}
    return {**best, "epochs": result["epochs"], "seconds_s": result["seconds_s"], "cpu_s": cpu_s / 2}


def _run(workspace: Path, *words: str) -> str:
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _measured(name: str, metric: str, target: float, result: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "metric": metric, "target": target, "target_s": LIMIT_S, **result}


def _print(result: dict[str, Any], as_json: bool) -> None:
    print(
        f"{result['name']:<22} accuracy {result['accuracy']:.4f}  macro-F1 {result['f1_macro']:.4f}"
        f"  best of {result['epochs']} epochs: {result['epoch']}  {result['seconds_s']:.0f} s"
        f" ({result['cpu_s']:.0f} s of two cores)  (target: {result['metric']} {result['target']:.2f}"
        f" within {result['target_s']:.0f} s)",
        file=sys.stderr if as_json else sys.stdout,
        flush=True,
    )


if __name__ == "__main__":
    main()
