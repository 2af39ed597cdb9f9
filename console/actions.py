"""Everything a key, a button or the palette can do: one registry for keys, footer, help, palette and docs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    `keys` are Textual's key names. `changes` says that it starts an engine command that changes something:
    `--readonly` refuses those. `footer` puts it on the last line, `when` limits it to "replay" or "live".
    """

    id: str
    label: str
    help: str
    keys: tuple[str, ...]
    group: str
    changes: bool = False
    footer: bool = False
    when: str = ""


ACTIONS: tuple[Action, ...] = (
    Action("sync", "sync now", "Look at the source now, instead of at the next interval", ("s",), "Do", True, True),
    Action("ab", "A/B", "Ask both slots the same labelled images", ("a",), "Do", True, True),
    Action("promote", "promote", "TO-BE becomes AS-IS, behind the gate and with a backup", ("p",), "Do", True, True),
    Action("rollback", "roll back", "Choose a backup and put it back on AS-IS", ("r",), "Do", True, True),
    Action("undo", "undo", "Put back what AS-IS held before its last change", ("u",), "Do", True, True),
    Action("train", "train", "Start a training in the background", ("t",), "Do", True, True),
    Action("stop", "stop training", "Stop the selected training; it can be gone on with", ("x",), "Do", True),
    Action("resume", "resume training", "Go on with a training that was interrupted", ("R",), "Do", True),
    Action("deploy", "deploy", "The selected checkpoint straight to TO-BE, through the same checks", ("d",), "Do", True),
    Action("serve", "serve", "Serve the slots in the background, until they are stopped", ("S",), "Do", True),
    Action("hold", "hold", "Keep TO-BE as it is, or let it change again", ("H",), "Do", True),
    Action("reject", "reject", "Never deploy TO-BE's release again", ("X",), "Do", True),
    Action("export", "export", "The selected checkpoint as files for other machines, each with its proof", ("e",), "Do",
           True, True),
    Action("analyze", "analyze", "Where the selected checkpoint is right and where not, on labelled data", ("A",), "Do",
           True),
    Action("label", "label", "Label live requests on which the slots differ", ("c",), "Do", True),
    Action("pane_devices", "devices", "Go to devices", ("1",), "Panes"),
    Action("pane_training", "training", "Go to training", ("2",), "Panes"),
    Action("pane_checkpoints", "checkpoints", "Go to checkpoints", ("3",), "Panes"),
    Action("pane_compare", "compare", "Go to the comparison", ("4",), "Panes"),
    Action("pane_events", "events", "Go to events", ("5",), "Panes"),
    Action("pane_log", "log", "Go to the log of a run or a slot", ("6",), "Panes"),
    Action("pane_slots", "slots", "Go to both slots", ("7",), "Panes"),
    Action("pane_next", "next pane", "Go to the next pane", ("tab", "right", "l"), "Panes"),
    Action("pane_previous", "previous pane", "Go to the previous pane", ("shift+tab", "left", "h"), "Panes"),
    Action("zoom", "zoom", "The pane alone, as large as the terminal; again for all panes", ("z",), "Panes"),
    Action("up", "up", "One row up", ("up", "k"), "Move"),
    Action("down", "down", "One row down", ("down", "j"), "Move"),
    Action("page_up", "page up", "One page up", ("pageup",), "Move"),
    Action("page_down", "page down", "One page down", ("pagedown",), "Move"),
    Action("top", "first row", "To the first row", ("home", "g"), "Move"),
    Action("bottom", "last row", "To the last row", ("end", "G"), "Move"),
    Action("open", "details", "All that is known of the selected row", ("enter",), "Look"),
    Action("subject", "go to subject", "From an event to what it is about", ("f",), "Look"),
    Action("confusion", "confusion matrix", "The last analysis: which classes are taken for which", ("C",), "Look"),
    Action("proof", "proof of exports", "How small and fast exported files are, and what it cost", ("E",), "Look"),
    Action("sweeps", "sweeps", "The newest sweeps, their runs ranked", ("v",), "Look"),
    Action("cloud", "cloud", "Rented machines: GPU, cost, budget and time left", ("dollar_sign",), "Look"),
    Action("images", "images", "The images on which the slots differ, drawn", ("i",), "Look", when="live"),
    Action("board", "board", "A held-out Go position with the best moves of both slots' nets", ("b",), "Look", when="live"),
    Action("log", "choose a log", "Which log pane 6 shows: a slot's, a run's, the last command's", ("L",), "Look",
           when="live"),
    Action("filter", "filter", "Show only rows that contain a text", ("slash",), "Look", footer=True),
    Action("sort", "sort", "Sort the list by the next column", ("o",), "Look"),
    Action("reverse", "reverse", "Turn the order of the list round", ("O",), "Look"),
    Action("mark", "mark", "Mark a checkpoint; two marked ones are compared", ("m",), "Look"),
    Action("copy", "copy", "Copy the selected row's hash, path or name", ("y",), "Look"),
    Action("picture", "picture", "Write what is on the screen to an SVG file", ("w",), "Look"),
    Action("theme", "theme", "Choose a theme; each is tried on while it is chosen", ("T",), "Look"),
    Action("replay_pause", "pause", "Stop or go on with the recording", ("space",), "Replay", footer=True, when="replay"),
    Action("replay_back", "back", "Ten seconds back", ("left_square_bracket",), "Replay", footer=True, when="replay"),
    Action("replay_on", "on", "Ten seconds on", ("right_square_bracket",), "Replay", footer=True, when="replay"),
    Action("replay_slower", "slower", "Half the speed", ("minus",), "Replay", when="replay"),
    Action("replay_faster", "faster", "Twice the speed", ("plus", "equals_sign"), "Replay", footer=True, when="replay"),
    Action("palette", "palette", "Find an action or a theme by its name", ("colon",), "Console", footer=True),
    Action("help", "help", "All keys", ("question_mark", "f1"), "Console", footer=True),
    Action("close", "close", "Close a sheet, drop a filter, leave the zoom", ("escape",), "Console"),
    Action("quit", "quit", "Leave the console; what it started goes on", ("q",), "Console", footer=True),
)  # fmt: skip
BY_ID = {action.id: action for action in ACTIONS}

SIGNS = {
    "slash": "/", "colon": ":", "question_mark": "?", "left_square_bracket": "[", "right_square_bracket": "]",
    "dollar_sign": "$", "minus": "-", "plus": "+", "equals_sign": "=", "up": "↑", "down": "↓", "left": "←", "right": "→",
    "pageup": "PgUp", "pagedown": "PgDn", "shift+tab": "S-Tab", "tab": "Tab", "enter": "Enter",
    "escape": "Esc", "space": "Space", "home": "Home", "end": "End", "f1": "F1",
}  # fmt: skip


def sign(key: str) -> str:
    """A key as a person reads it on the keyboard."""
    return SIGNS.get(key, key)


def key_table() -> str:
    """The table of keys in docs/console.md, in Markdown."""
    lines = ["| key | does | in words |", "|---|---|---|"]
    for action in ACTIONS:
        keys = " ".join(f"`{sign(key)}`" for key in action.keys)
        where = {"replay": " (in a replay)", "live": " (not in a replay)"}.get(action.when, "")
        lines.append(f"| {keys} | {action.label}{where} | {action.help} |")
    return "\n".join(lines)
