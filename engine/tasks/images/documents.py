"""A synthetic document set: pages of seventeen kinds, photographed as a person would, in `train/` and `val/`.

What validates was never trained on: its layouts come from other streams, its fonts from other families. It measures
whether a recipe learns kinds of documents; it is not data of anybody's documents, and no figure on it stands for one.
"""

from __future__ import annotations

import io
import re
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from engine.errors import UsageError
from engine.store.files import write_json
from engine.tasks.images.kinds import KINDS
from engine.tasks.images.pages import Page, Rng, Style

LAYOUTS = {"train": 60, "val": 20}  # layouts of each kind in a part
OUTPUT = 512  # longer side of a photograph, pixels
_NOT_TEXT = ("sym", "cmsy", "cmmi", "cmex", "math", "emoji", "icon", "sizeone", "sizetwo", "sizethree", "sizefour", "display", "cjk", "stixnonuni", "lastresort")  # fmt: skip
_INKS = ((20, 60, 130), (150, 30, 45), (25, 110, 70), (90, 50, 130), (170, 95, 20), (40, 40, 48), (10, 115, 130))
_PAPERS = ((253, 253, 251), (246, 243, 235), (248, 249, 253), (250, 246, 246), (243, 249, 243))


@dataclass(frozen=True)
class Family:
    """A type family: paths of its regular and bold cut; `mono` says whether its letters are equally wide."""

    name: str
    regular: str
    bold: str
    mono: bool


def find_families() -> list[Family]:
    """The text families on this host: matplotlib's and the system's, sorted by name."""
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts"]
    folders += [Path("/Library/Fonts"), Path("/System/Library/Fonts/Supplemental"), Path("C:/Windows/Fonts")]
    try:
        import matplotlib

        folders.append(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
    except ModuleNotFoundError:
        pass
    cuts: dict[str, dict[str, str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.ttf")) if folder.is_dir() else ():
            if any(word in path.stem.lower() for word in _NOT_TEXT):
                continue
            try:
                family, cut = ImageFont.truetype(str(path), 12).getname()
            except OSError:
                continue
            if family and cut:
                cuts.setdefault(family, {}).setdefault(cut.lower(), str(path))
    families = []
    for name, paths in sorted(cuts.items()):
        regular = next(
            (paths[cut] for cut in ("regular", "book", "roman", "normal", "medium") if cut in paths), None
        )
        if regular is None:
            continue
        font = ImageFont.truetype(regular, 40)
        if bytes(font.getmask("A")) == bytes(font.getmask("K")):  # a font that draws all letters as one box
            continue
        mono = font.getlength("i") == font.getlength("W")
        families.append(Family(name, regular, paths.get("bold", regular), mono))
    return families


def share_families(families: list[Family]) -> dict[str, list[Family]]:
    """The families of each part. No maker's (DejaVu, Liberation, Computer Modern) are in both.

    Raises:
        UsageError: there are not two houses of fonts on this host.
    """
    houses: dict[str, list[Family]] = {}
    for family in families:
        houses.setdefault(_house(family.name), []).append(family)
    # the largest house trains, the next validates, then by turns: both get several cuts
    ranked = sorted(houses, key=lambda house: (-len(houses[house]), house))
    if len(ranked) < 2:
        raise UsageError(
            "a document set needs fonts of two makers, one to train on and one to validate with",
            "install matplotlib, or fonts such as Liberation and DejaVu",
            kind="no_fonts",
        )
    shared: dict[str, list[Family]] = {"train": [], "val": []}
    for place, house in enumerate(ranked):
        shared["val" if place % 2 else "train"] += houses[house]
    return shared


def _house(name: str) -> str:
    """A family's maker: the first word of its name; TeX's cmr10, cmss10 and so on are one."""
    first = name.split()[0].lower()
    return "cm" if re.fullmatch(r"cm[a-z]+\d+", first) else first


def write_documents(
    folder: Path,
    *,
    classes: int = len(KINDS),
    per_class: int = 200,
    val_per_class: int = 40,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw a set into `folder`/{train,val}/CLASS/NNNN.jpg, and `documents.json` that says what it is made of.

    The same arguments and fonts give the same images, in any order and at any number of threads.

    Args:
        classes: the first so many of `KINDS`, at least 2.

    Raises:
        UsageError: the folder holds something already, the numbers are impossible, or fonts are missing.
    """
    if not 2 <= classes <= len(KINDS):
        raise UsageError(f"there are {len(KINDS)} kinds of documents, not {classes}", f"take 2 to {len(KINDS)}")
    if per_class < 1 or val_per_class < 1:
        raise UsageError("each class needs an image in each part at least", "see --per-class and --val-per-class")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", "name a new folder", kind="exists")
    fonts = share_families(find_families())
    names = list(KINDS)[:classes]
    jobs = []
    for part, count in (("train", per_class), ("val", val_per_class)):
        for name in names:
            (folder / part / name).mkdir(parents=True)
            jobs += [(part, name, number) for number in range(count)]

    def write(job: tuple[str, str, int]) -> None:
        part, name, number = job
        content = photograph(name, part, number, seed, fonts[part])
        (folder / part / name / f"{number:04d}.jpg").write_bytes(content)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(write, jobs), 1):
            if on_progress:
                on_progress(done, len(jobs))
    report: dict[str, Any] = {
        "synthetic": True,
        "classes": names,
        "train": per_class * classes,
        "val": val_per_class * classes,
        "layouts": LAYOUTS,
        "fonts": {part: [family.name for family in families] for part, families in fonts.items()},
        "seed": seed,
        "python": sys.version.split()[0],
    }
    write_json(folder / "documents.json", report)
    return report


def photograph(name: str, part: str, number: int, seed: int, families: list[Family]) -> bytes:
    """The `number`-th photograph of a kind as JPEG. Its layout is one of the part's, its text and light its own."""
    kind, key = KINDS[name], zlib.crc32(name.encode())
    side = ("train", "val").index(part)
    layout = np.random.default_rng([seed, key, side, number % LAYOUTS[part]])
    rng = np.random.default_rng([seed, key, side, number, 1])
    style = _style(layout, families)
    aspect = layout.uniform(*kind.aspect)
    width, height = (kind.side, kind.side / aspect) if aspect > 1 else (kind.side * aspect, kind.side)
    page = Page(round(width), round(height), style, rng)
    kind.draw(page)
    buffer = io.BytesIO()
    _shot(page.image, rng).save(buffer, "JPEG", quality=int(rng.integers(45, 92)))
    return buffer.getvalue()


def _style(layout: Rng, families: list[Family]) -> Style:
    text = [family for family in families if not family.mono] or families
    mono = [family for family in families if family.mono] or families
    body, head = text[int(layout.integers(len(text)))], text[int(layout.integers(len(text)))]
    shade = int(layout.integers(10, 60))
    return Style(
        layout,
        body.regular,
        head.bold,
        mono[int(layout.integers(len(mono)))].regular,
        (shade, shade, shade + 5),
        _INKS[int(layout.integers(len(_INKS)))],
        _PAPERS[int(layout.integers(len(_PAPERS)))],
        float(layout.uniform(0.05, 0.1)),
    )


def _shot(page: Image.Image, rng: Rng) -> Image.Image:
    """The page on a table, seen by a hand-held camera: turned, tilted, shaded, a little unsharp and noisy."""
    portrait = page.height >= page.width
    width, height = (round(OUTPUT * 0.75), OUTPUT) if portrait else (OUTPUT, round(OUTPUT * 0.75))
    fill = rng.uniform(0.82, 0.97)
    scale = min(width / page.width, height / page.height) * fill
    half = np.array([page.width * scale / 2, page.height * scale / 2])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    angle = np.deg2rad(rng.normal(0, 4))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = corners @ turn * rng.uniform(0.93, 1.06, (4, 2)) + rng.uniform(-0.02, 0.02, 2) * OUTPUT
    corners += (width / 2, height / 2)
    flat = [(0, 0), (page.width, 0), (page.width, page.height), (0, page.height)]
    placed = page.transform(
        (width, height), Image.Transform.PERSPECTIVE, _projection(corners, flat), Image.Resampling.BICUBIC
    )
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], 255)
    whole = Image.composite(placed, _table(width, height, rng), mask.filter(ImageFilter.GaussianBlur(0.7)))
    if rng.random() < 0.5:
        whole = whole.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    light = np.asarray(whole, np.float32) * _light(width, height, rng)[..., None] * rng.uniform(0.92, 1.06, 3)
    light += rng.normal(0, rng.uniform(1, 7), (height, width, 1))
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


def _projection(targets: np.ndarray, sources: list[tuple[int, int]]) -> list[float]:
    """Pillow's eight coefficients that map the four targets to the sources."""
    rows, values = [], []
    for (x, y), (u, v) in zip(targets, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows, float), np.array(values, float))]


def _table(width: int, height: int, rng: Rng) -> Image.Image:
    """A table top: one colour with grain that runs along it."""
    base = rng.uniform(25, 210) + rng.uniform(-30, 30, 3)
    grain = rng.normal(0, rng.uniform(2, 14), (height, max(2, width // int(rng.integers(2, 60)))))
    lines = Image.fromarray(grain.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return Image.fromarray((base + np.asarray(lines)[..., None]).clip(0, 255).astype(np.uint8))


def _light(width: int, height: int, rng: Rng) -> np.ndarray:
    """How bright each place is: a slope across the picture, and sometimes the edge of a shadow."""
    ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = 1 + rng.uniform(0, 0.2) * (np.cos(angle) * xs + np.sin(angle) * ys)
    if rng.random() < 0.4:
        angle, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.7, 0.7)
        across = np.cos(angle) * xs + np.sin(angle) * ys - edge
        slope *= 1 - rng.uniform(0.15, 0.45) / (1 + np.exp(-across * rng.uniform(8, 40)))
    return slope * rng.uniform(0.8, 1.1)
