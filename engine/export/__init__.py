"""Models as files for other machines, each with its proof. See docs/edge.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ModelExporter"]


class ModelExporter:
    """The documents' way to export from a program: `ModelExporter(model_path, config_path).export_all(folder)`.

    Args:
        model_path: a checkpoint file, or the first digits of a release.
        config_path: the documents' `edge_config.json`; None: `[export]` of the project's config.
        workspace: the folder of this host's state; None: as the config says.
        overrides: settings as the command line takes them ("export.max_loss=0.01").

    Raises:
        UsageError: a config that cannot be read.
    """

    def __init__(
        self,
        model_path: str | Path,
        config_path: str | Path | None = None,
        *,
        workspace: str | Path | None = None,
        overrides: tuple[str, ...] = (),
    ) -> None:
        from engine.config import load_settings

        self.model_path = str(model_path)
        self.settings = load_settings(None, Path(workspace) if workspace else None, overrides).settings
        if config_path is not None:
            from engine.export.edge_config import with_edge_config

            self.settings = with_edge_config(self.settings, Path(config_path).expanduser())

    def export_all(
        self,
        output_dir: str | Path = "exported_models",
        *,
        data: str | Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[str, Any]:
        """Write every format that the config names.

        Args:
            data: labelled data that INT8 is calibrated on and every file judged on.
            say: takes lines for people.

        Returns:
            the contract's object of `export`: `artifacts`, `skipped` and more, as in `export.json`.

        Raises:
            UnderstudyError: as `engine.export.pipeline.export_checkpoint`.
        """
        from engine.export.pipeline import export_checkpoint
        from engine.store.schema import ensure
        from engine.store.workspace import Workspace

        workspace = Workspace(Path(self.settings.workspace))
        ensure(workspace)
        return export_checkpoint(
            workspace,
            self.settings,
            self.model_path,
            Path(output_dir).expanduser(),
            data=str(data) if data else None,
            say=say,
        )
