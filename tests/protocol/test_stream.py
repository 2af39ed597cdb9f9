"""The stream's format, held by golden recordings: what was written once is read for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from engine.protocol import (
    KINDS,
    VERSION,
    Checkpoints,
    Devices,
    Health,
    Message,
    Progress,
    ProtocolError,
    Runs,
    Slots,
    encode,
    parse,
    read_stream,
    to_json,
)

GOLDEN = Path(__file__).parent / "golden"


def lines(name: str) -> list[str]:
    return (GOLDEN / name).read_text(encoding="utf-8").splitlines()


def kept(recorded: object, written: object) -> bool:
    """Whether everything that was recorded is written back; what is new since then may stand beside it."""
    if isinstance(recorded, dict) and isinstance(written, dict):
        return all(key in written and kept(value, written[key]) for key, value in recorded.items())
    if isinstance(recorded, list) and isinstance(written, list):
        return len(recorded) == len(written) and all(map(kept, recorded, written))
    return type(recorded) is type(written) and recorded == written


@pytest.mark.parametrize(
    "name", ["evening.jsonl", "faults.jsonl", "baking.jsonl", "sweeps.jsonl", "proofs.jsonl", "cloud.jsonl"]
)
def test_a_recording_reads_and_writes_back_to_the_same_values(name: str) -> None:
    recorded = lines(name)
    messages = [parse(line) for line in recorded]
    written = [encode(message) for message in messages]
    assert all(
        kept(json.loads(before), json.loads(after)) for before, after in zip(recorded, written, strict=True)
    )
    assert [parse(line) for line in written] == messages
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    assert all(type(message.data) is KINDS[message.kind] for message in messages)


def test_a_promotion_that_is_watched() -> None:
    slots, health = (parse(line).data for line in lines("baking.jsonl"))
    assert isinstance(slots, Slots)
    assert slots.bake
    assert (slots.bake.state, slots.bake.requests, slots.bake.errors) == ("alarm", 5120, 61)
    assert slots.shadow
    assert slots.shadow.differed == 17
    assert isinstance(health, Health)
    assert health.alerts == ["AS-IS answers 1.2% of its requests with errors"]
    assert health.beat_s == 2.0


def test_sweeps_are_ranked_and_say_how_far_they_are() -> None:
    (runs,) = (parse(line).data for line in lines("sweeps.jsonl"))
    assert isinstance(runs, Runs)
    live, dead = runs.sweeps
    assert (runs.sweeps_total, live.state, live.done, live.failed, live.total) == (5, "running", 2, 1, 4)
    assert live.best == live.runs[0]
    assert [(run.rank, run.status) for run in live.runs[1:]] == [
        (2, "completed"),
        (None, "running"),
        (None, "failed"),
    ]
    assert (dead.state, dead.best) == ("lost", None)


def test_what_was_found_out_about_a_checkpoint() -> None:
    runs, known = (parse(line).data for line in lines("proofs.jsonl"))
    assert isinstance(runs, Runs)
    assert (runs.runs[0].fit_verdict, runs.runs[0].predicted_bytes) == ("edge", 24_588_687_769)
    assert isinstance(known, Checkpoints)
    assert known.analysis
    assert known.analysis.matrix[9][1] == known.analysis.confusions[0].count == 17
    assert [sum(row) for row in known.analysis.matrix] == known.analysis.support
    whole, pruned, damaged = known.exports
    assert [(one.format, one.present) for one in whole.files] == [("onnx", True), ("pt2", True), ("int8", True)]
    assert (whole.skipped[0].format, pruned.sparsity, pruned.files[0].present) == ("torchscript", 0.3, False)
    assert damaged.problem == "export.json is not JSON"


def test_the_evening_holds_every_kind_and_both_hosts() -> None:
    messages = [parse(line) for line in lines("evening.jsonl")]
    assert {message.kind for message in messages} == set(KINDS) - {"cloud"}  # has a recording of its own
    assert {message.host for message in messages} == {"studio", "gpu-box"}
    slots = [message.data for message in messages if isinstance(message.data, Slots)]
    assert slots[-1].asis.cycle == 8
    assert slots[-1].backups[0].name == "model_8891_backup_20261120_170700.bin"
    progress = next(message.data for message in messages if isinstance(message.data, Progress))
    assert progress.runs[0].points[-1].epoch == 22


def test_faults_say_what_is_wrong_where_and_since_when() -> None:
    messages = [parse(line) for line in lines("faults.jsonl")]
    stale, offline = [m.data for m in messages if isinstance(m.data, Devices) and m.data.state != "live"]
    assert stale.state == "stale"
    assert stale.devices[0].stale
    assert stale.devices[0].used_bytes  # the last good value stays
    assert offline.problem == "no answer on port 22"
    health = next(message.data for message in messages if isinstance(message.data, Health))
    assert health.missed_looks == 4
    assert [source.state for source in health.sources if source.name == "host gpu-box"] == ["offline"]


def test_an_older_writer_may_leave_out_what_has_a_default() -> None:
    messages = [parse(line) for line in lines("older.jsonl")]
    assert {message.kind for message in messages} == set(KINDS) - {"cloud"}  # has a recording of its own
    again = [parse(encode(message)) for message in messages]
    assert again == messages


def test_a_newer_writer_of_the_same_version_is_read_for_what_is_known() -> None:
    devices, costs = (parse(line) for line in lines("newer.jsonl"))
    assert isinstance(devices.data, Devices)
    assert devices.data.devices[0].name == "B300"
    assert costs.kind == "costs"
    assert costs.data == {"hourly_usd": 0.69}


def test_another_version_is_refused_in_words() -> None:
    with pytest.raises(ProtocolError, match=f"future speaks version 2 .* reads 1 to {VERSION}") as caught:
        parse(lines("version_2.jsonl")[0])
    assert caught.value.kind == "version"
    assert caught.value.hint == "update Understudy here"
    older = json.dumps({"v": 0, "seq": 1, "at": "", "host": "museum", "kind": "runs", "data": {}})
    with pytest.raises(ProtocolError, match="update Understudy on museum"):
        parse(older)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq": "one"}, "message.seq should be a whole number"),
        ({"data": None}, "has no data"),
        ({"data": {}}, "slots has no 'asis'"),
        ({"data": {"asis": {"port": 1, "state": "up"}, "tobe": {}}}, "slots.asis.state should be one of"),
        ({"data": {"asis": {"port": True, "state": "live"}, "tobe": {}}}, "slots.asis.port should be a whole"),
        ({"kind": "ab", "data": {"comparison": [1]}}, "ab.comparison should be an object"),
        ({"kind": "runs", "data": {"runs": [{"run": 3, "status": "x"}]}}, r"runs.runs\[0\].run should be a text"),
    ],
)
def test_a_damaged_message_names_the_place(change: dict[str, object], words: str) -> None:
    sound = json.loads(lines("older.jsonl")[1])
    with pytest.raises(ProtocolError, match=words):
        parse(json.dumps(sound | change))


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"kind": "runs"}', "\x00\xff"])
def test_a_line_that_is_no_message_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        parse(line)


def test_a_recording_cut_off_in_its_last_line_is_read_to_there() -> None:
    text = (GOLDEN / "evening.jsonl").read_text(encoding="utf-8")
    whole = text.count("\n")
    cut = text[:-40].splitlines(keepends=True)
    assert len(list(read_stream(cut))) == whole - 1
    with pytest.raises(ProtocolError):
        list(read_stream(["{broken\n", *cut]))


def test_numbers_that_are_not_finite_become_null() -> None:
    line = encode(
        Message(v=1, seq=1, at="", host="", kind="progress", data=parse(lines("older.jsonl")[3]).data)
    ).replace('"loss":null', '"loss":NaN')
    message = parse(line)
    assert "NaN" not in encode(message)


def test_every_field_that_is_not_the_identity_of_a_thing_has_a_default() -> None:
    """So that a later version may leave it out and an older recording still be read."""
    for kind, shape in KINDS.items():
        assert is_dataclass(shape)
        assert len(fields(shape)) > 1, kind
    assert to_json(Health())["missed_looks"] == 0


def test_the_protocol_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import engine.protocol, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "torch",
        "numpy",
        "pydantic",
        "httpx",
        "click",
        "asyncssh",
        "engine.config",
        "engine.store",
    }
