"""Themes, keymaps, options, figures and curves; the documents; and what the console must not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.color import Color

from console import text
from console.actions import key_table
from console.glyphs import ASCII, UNICODE
from console.keymap import default_keys, load_keys
from console.options import parse
from console.theme import SHIPPED, load_themes
from console.widgets.charts import area, bar, curve, whisker
from console.widgets.rows import Row, changed_columns
from engine.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]


def luminance(color: str) -> float:
    triplet = Color.parse(color).get_truecolor()
    parts = [part / 255 for part in (triplet.red, triplet.green, triplet.blue)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_shipped_themes_are_whole_and_readable() -> None:
    themes, faults = load_themes([SHIPPED])
    assert not faults
    assert len(themes) >= 8
    for theme in themes.values():
        if theme.terminal:
            continue
        ground = luminance(theme.colors["background"])
        for role, least in (("foreground", 7.0), ("dim", 3.5), ("asis", 4.0), ("tobe", 4.0), ("good", 4.0),
                            ("warning", 4.0), ("danger", 4.0), ("accent", 4.0)):  # fmt: skip
            light, dark = sorted((luminance(theme.colors[role]), ground), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, f"{theme.name}: {role}"


def test_every_fault_of_every_theme_is_told_with_its_line(tmp_path: Path) -> None:
    good = (SHIPPED / "ember.toml").read_text()
    (tmp_path / "a.toml").write_text(
        good.replace('dim = "#998a78"', 'dim = "greyish"').replace("rule =", "ruler =")
    )
    (tmp_path / "b.toml").write_text("dark = \n")
    (tmp_path / "c.toml").write_text(good)
    themes, faults = load_themes([tmp_path])
    assert list(themes) == ["c"]
    said = [str(fault) for fault in faults]
    assert len(said) == 4
    assert any("a.toml:8: colors.dim must be #rrggbb" in line for line in said), said
    assert any("unknown role 'colors.ruler'" in line for line in said)
    assert any("colors.rule is missing" in line for line in said)
    assert any("b.toml:1:" in line for line in said)


def test_a_keymap_is_taken_and_its_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('promote = "P"\nsync = ["f5", "s"]\n')
    keys = load_keys(path)
    assert (keys["promote"], keys["sync"]) == (("P",), ("f5", "s"))
    path.write_text('promte = "P"\nab = "ctrl+s"\nsync = "r"\n')
    with pytest.raises(UsageError) as caught:
        load_keys(path)
    said = str(caught.value)
    assert "keys.toml:1: unknown action 'promte', did you mean 'promote'?" in said
    assert "keys.toml:2: 'ctrl+s' never arrives" in said
    assert "keys.toml:3: 'r' is both sync and rollback" in said
    assert load_keys(None) == default_keys()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('stop = "ctrl+q"', ":1: 'ctrl+q' never arrives here"),
        ('stop = "ctrl+b"', ":1: 'ctrl+b' never arrives here: tmux takes it"),
        ('\n\nstop = "escape"', ":3: 'escape' never arrives here: it always closes"),
        ('stop = "hyper+x"', ":1: 'hyper+x' never arrives here"),
        ('stop = "shift+a"', ":1: 'shift+a' never arrives here"),
        ("stop = 7", ":1: 'stop' needs a key or a list of keys"),
        ('stop = "k"', "'k' is both stop and up (its own key)"),
        ('stop = ["v", "n"]\nimages = "n"', "'n' is both stop and images (line 2)"),
        ("stop = ", "is not valid TOML"),
    ],
)
def test_each_kind_of_fault_in_a_keymap(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content + "\n")
    with pytest.raises(UsageError) as caught:
        load_keys(path)
    assert fault in str(caught.value)


def test_keys_that_changed_places_do_not_clash(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('sync = "a"\nab = "s"\nimages = "alt+i"\nlog = "f2"\nfilter = ["/", "ctrl+f"]\n')
    keys = load_keys(path)
    assert (keys["sync"], keys["ab"]) == (("a",), ("s",))
    assert keys["filter"] == ("slash", "ctrl+f")


def test_options_of_the_line_win_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[console]\ntheme = "ember"\nkeymap = "keys.toml"\n')
    found = parse(["--config", str(config), "console.theme=mono", "--readonly"])
    assert (found.theme, found.readonly) == ("mono", True)
    assert found.keymap == tmp_path / "keys.toml"
    assert found.engine("watch")[-2:] == ["watch", "console.theme=mono"]
    with pytest.raises(UsageError, match="did you mean 'theme'"):
        parse(["console.thme=x"])


def test_the_mouse_is_left_to_the_terminal_by_the_config(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[console]\nmouse = false\n")
    assert not parse(["--config", str(file)]).mouse
    assert parse(["--config", str(file), "console.mouse=true"]).mouse
    assert not parse(["--config", str(file), "console.mouse=true", "--no-mouse"]).mouse
    with pytest.raises(UsageError, match="mouse"):
        parse(["console.mouse=perhaps"])


def test_the_key_table_in_the_documents_is_the_registry() -> None:
    assert key_table() in (PROJECT / "docs" / "console.md").read_text(encoding="utf-8")


def test_neither_torch_nor_the_engine_is_imported() -> None:
    program = (
        "import sys, console.app, console.deeds, console.changes, console.plain, console.sheets.images, console.sheets.label, console.sheets.details, console.__main__\n"
        "wrong = [n for n in sys.modules if n.split('.')[0] in ('torch', 'numpy', 'PIL', 'httpx', 'asyncssh', 'pydantic')]\n"
        "wrong += [n for n in sys.modules if n.startswith('engine.') and n.split('.')[1] not in ('protocol', 'errors', 'environments')]\n"
        "print(wrong)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_long() -> None:
    for path in (PROJECT / "console").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_figures() -> None:
    assert text.percent(0.8714) == "87.1%"
    assert text.points(-0.013) == "−1.3"
    assert text.size(8_600_000) == "8.2 MiB"
    assert text.share(61.2 * 2**30, 141 * 2**30) == "61.2/141 GiB"
    assert [text.duration(s) for s in (45, 1080, 273_600, 7_260)] == ["45 s", "18 min", "3 d 4 h", "2 h 01 min"]
    assert [text.count(n) for n in (842, 99_999, 125_000, 1_252_927)] == ["842", "99,999", "125 k", "1.25 M"]
    assert text.small(0.0004) == "< 0.001"
    assert text.clip("모델을 배포했습니다", 9) == "모델을…"
    assert text.advice("compare both slots; run: python -m engine ab") == "compare both slots"


def test_curves_and_bars() -> None:
    rising = curve([0, 1, 2, 3], 2, 1, UNICODE)
    assert rising == ["⡠⠊"] or len(rising[0]) == 2
    assert curve([], 3, 2, UNICODE) == ["   ", "   "]
    assert "*" in "".join(curve([0, 1, 2, 3], 4, 2, ASCII))
    half = curve([1.0, 1.0], 10, 1, UNICODE, span=20)[0]
    assert half.rstrip(" ") != half
    assert area([0.0, 1.0], 1, UNICODE) == "⣸"
    assert bar(0.5, 4, UNICODE) == ("━━", "──")
    assert "".join(whisker(0.2, 0.5, 0.8, 11, 0.0, 1.0, UNICODE)) == "  ├──●──┤"


def test_only_what_changed_is_sent() -> None:
    before, after = Row("use  ").put("87%", "load"), Row("use  ").put("88%", "load")
    assert changed_columns(before, after, 40) == [(6, 7)]
    assert changed_columns(before, before, 40) == []
    assert changed_columns(Row("가나"), Row("가다"), 40) == [(0, 40)]


def test_rows_are_cut_and_filled_exactly() -> None:
    assert Row("abcdef").cut(4).plain == "abc…"
    assert Row("abc").to(6).put("x").plain == "abc   x"
    assert Row("abcdef").to(4).put("x").plain == "ab… x"
    assert Row("abc").right("99%", 8).plain == "abc  99%"
