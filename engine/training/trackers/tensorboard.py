"""TensorBoard's event files by its own writer, without torch: `tensorboard --logdir WORKSPACE/runs`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.metadata import NULL_TENSOR, SESSION_START_INFO_TAG, create_summary_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from engine.training.trackers.child import flat, numbers, step_of


class TensorBoard:
    """`RUN/tensorboard/`: `train/*` while it runs, `epoch/*` after each, the settings as hyperparameters."""

    def __init__(self, what: dict[str, Any]) -> None:
        folder = Path(what["folder"]) / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder))

    def started(self, manifest: dict[str, Any]) -> None:
        session = SessionStartInfo(model_uri=str(manifest["run"]), group_name=str(manifest["run"]))
        for name, value in flat(manifest.get("settings") or {}).items():
            if isinstance(value, bool):
                session.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                session.hparams[name].number_value = value
            elif isinstance(value, str):
                session.hparams[name].string_value = value
        content = create_summary_metadata(HParamsPluginData(session_start_info=session))
        shown = Summary.Value(tag=SESSION_START_INFO_TAG, metadata=content, tensor=NULL_TENSOR)
        self._add(Summary(value=[shown]), 0)

    def epoch(self, row: dict[str, Any]) -> None:
        self._scalars("epoch", numbers(row), int(row["epoch"]))
        self._writer.flush()

    def step(self, progress: dict[str, Any]) -> None:
        names = ("loss", "samples_per_s", "memory_bytes")
        self._scalars("train", numbers({name: progress.get(name) for name in names}), step_of(progress))

    def ended(self, manifest: dict[str, Any]) -> None:
        self._writer.close()

    def _scalars(self, group: str, values: dict[str, float], step: int) -> None:
        found = [Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in values.items()]
        self._add(Summary(value=found), step)

    def _add(self, summary: Summary, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
