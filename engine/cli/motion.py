"""`motion`: the Motion Diffusion Model beside its training (`train task=motion data.root=DIR`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.group import VerbGroup
from engine.cli.verb import Session, Verb
from engine.errors import UsageError

motion = VerbGroup(
    {
        "sample": ("motion", "Motions out of noise, as a NumPy file."),
        "import": ("motion", "A published checkpoint as one that samples, exports and deploys."),
    },
    prefix="motion_",
    name="motion",
    help="The Motion Diffusion Model; train it with: train task=motion data.root=DIR",
)


@click.command(cls=Verb)
@click.option("--checkpoint", metavar="C", required=True, help="A checkpoint file, or a release.")
@click.option("--out", metavar="FILE", required=True, help="A .npy: float32 [motions, frames, features].")
@click.option(
    "--steps", metavar="N", type=click.IntRange(1), help="Passes of the net (default: all; fewer: DDIM)."
)
@click.option("--sampler", type=click.Choice(["auto", "ddpm", "ddim"]), default="auto", show_default=True)
@click.option("--count", metavar="N", type=click.IntRange(1), default=1, show_default=True, help="Motions.")
@click.option("--frames", metavar="N", type=click.IntRange(1), help="Of each (default: the net's window).")
@click.option("--action", metavar="NAME", help="One that the net was trained on.")
@click.option("--text-embedding", metavar="FILE", help="A .npy with one text's embedding.")
@click.option("--guidance", metavar="S", type=float, default=1.0, show_default=True,
              help="How far the condition pulls; MDM's own samples have 2.5.")  # fmt: skip
@click.option("--seed", metavar="N", type=int, default=0, show_default=True)
def motion_sample(
    session: Session,
    checkpoint: str,
    out: str,
    steps: int | None,
    sampler: str,
    count: int,
    frames: int | None,
    action: str | None,
    text_embedding: str | None,
    guidance: float,
    seed: int,
) -> None:
    """Sample motions, in the units of the data that the net was trained on."""
    import io
    import time

    import numpy as np

    from engine.store.files import atomic_write
    from engine.training.inference import load_for_inference
    from engine.training.motion import Wanted, sample_motions

    path = Path(out).expanduser()
    if not path.absolute().parent.is_dir():
        raise UsageError(f"no folder {path.parent}", "make it, or choose another --out", kind="not_found")
    if Path(checkpoint).is_file() and (Path(checkpoint).parent / "args.json").is_file():
        raise UsageError(
            f"{checkpoint} is a published checkpoint",
            f"take it over first: python -m engine motion import --checkpoint {checkpoint} --stats DIR --out mdm.pth",
        )
    loaded = load_for_inference(session.workspace, session.settings, checkpoint)
    for note in loaded.notes:
        session.say(f"note: {note}")
    text = Path(text_embedding).expanduser() if text_embedding else None
    wanted = Wanted(steps, count, frames, action, text, guidance, sampler, seed)
    began = time.monotonic()
    motions, facts = sample_motions(loaded, wanted)
    stream = io.BytesIO()
    np.save(stream, motions)
    atomic_write(path, stream.getvalue())
    facts |= {"path": str(path), "seconds_s": round(time.monotonic() - began, 3)}
    session.emit(facts, _sampled)


@click.command(cls=Verb)
@click.option("--checkpoint", metavar="FILE", required=True, help="model000475000.pt, its args.json beside it.")
@click.option("--stats", metavar="DIR", required=True, help="The Mean.npy and Std.npy of its training data.")
@click.option("--out", metavar="FILE", required=True, help="The checkpoint to write, a .pth.")
def motion_import(session: Session, checkpoint: str, stats: str, out: str) -> None:
    """Take over a published motion diffusion checkpoint."""
    from engine.training.motion import take_over

    path = Path(out).expanduser()
    facts, notes = take_over(Path(checkpoint).expanduser(), Path(stats).expanduser(), path)
    for note in notes:
        session.say(f"note: {note}")
    session.emit(facts, f"{path}: {facts['parameters']:,} parameters; export, deploy or sample it like any other")


def _sampled(facts: dict[str, Any]) -> str:
    what = f"{facts['motions']} × {facts['frames']} frames × {facts['features']} values"
    return (
        f"{facts['path']}: {what}, {facts['steps']} {facts['sampler'].upper()} steps"
        f" on {facts['device']} in {facts['seconds_s']:.1f} s"
    )
