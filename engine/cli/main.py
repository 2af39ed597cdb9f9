"""`python -m engine`: finds the verb, runs it, turns errors into the contract's exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

import click

from engine import __version__
from engine.cli.group import VerbGroup
from engine.config import mask
from engine.errors import Interrupted, UnderstudyError, UsageError
from engine.store import logjson

VERBS: dict[str, tuple[str, str]] = {
    # verb: (module below engine.cli, one line of help)
    "bench": ("bench", "Run one of the repeatable measurements."),
    "demo": ("demo", "Drive the whole road on embedded data in a fresh workspace."),
    "config": ("config", "Show the merged settings and where each came from."),
    "status": ("status", "Everything at a glance, and what to do next."),
    "devices": ("devices", "Accelerators and memory of every host."),
    "doctor": ("doctor", "Check everything a person would, and say how to mend it."),
    "notify": ("notify", "Send a test message to every configured channel."),
    "watch": ("watch", "The stream that the console draws: JSON Lines until stopped."),
    "events": ("events", "Show or follow the audit log."),
    "logs": ("logs", "Show or follow the log of a slot, of sync or of a run."),
    "train": ("train", "Train a model; best and last are kept, and it can be resumed."),
    "fit": ("fit", "Will a training fit into memory, before it is begun."),
    "runs": ("train", "Training runs, newest first."),
    "trackers": ("trackers", "Which trackers are on; tell MLflow's registry what the slots hold."),
    "data": ("data", "Check the data of a training: files, classes, duplicates, splits."),
    "predict": ("predict", "What a checkpoint or a release says to files."),
    "submit": ("submit", "Answers into a CSV, in the order and columns of a sample."),
    "analyze": ("analyze", "Confusion matrix, per-class figures and calibration on labelled data."),
    "ensemble": ("ensemble", "Soft voting of several checkpoints, beside each alone."),
    "go": ("go", "The Go policy network: parse games, train, play."),
    "motion": ("motion", "Motion diffusion: take over a published net, sample motions."),
    "cloud": ("cloud", "Rented GPUs and your own server: plan, launch, cost, end."),
    "documents": ("documents", "Draw a synthetic document set to try a recipe on."),
    "sync": ("sync", "Look at the source; take a changed checkpoint to TO-BE."),
    "cron": ("cron", "The schedule of sync in the crontab."),
    "ab": ("ab", "Compare AS-IS and TO-BE on the same labelled images."),
    "label": ("label", "Label live requests on which AS-IS and TO-BE differ."),
    "differing": ("differing", "The images of a comparison on which the two differ."),
    "checkpoints": ("checkpoints", "Show the history of checkpoints, or prune it."),
    "export": ("export", "A model as files for other machines, each with its proof."),
    "serve": ("serve", "Serve the slots until stopped."),
    "deploy": ("release", "Check a checkpoint file and give it to TO-BE."),
    "promote": ("release", "Give AS-IS what TO-BE holds, behind the gate."),
    "rollback": ("release", "List AS-IS's backups, or put one back."),
    "hold": ("release", "Keep TO-BE as it is."),
    "unhold": ("release", "Let TO-BE change again."),
    "service": ("service", "The slots and sync as boot services (systemd, launchd)."),
    "bake": ("bake", "The watch over a promoted release: live answers against the old one's."),
    "prune": ("prune", "Remove old releases and backups that nothing needs."),
    "workspace": ("workspace", "Back up, restore, check or migrate this host's state."),
    "reject": ("release", "Never deploy this release again."),
}


def build() -> VerbGroup:
    return VerbGroup(
        VERBS,
        name="engine",
        help="Understudy's engine: train, sync, release, serve, compare, promote.",
        epilog=f"version {__version__}",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; errors go out as the contract says."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        click.echo(build().get_help(click.Context(build(), info_name="python -m engine")))
        return UsageError.exit_code
    as_json = "--json" in arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = build().main(args=arguments, prog_name="python -m engine", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UnderstudyError as error:
        return _report(error, as_json, arguments)
    except (KeyboardInterrupt, click.Abort):
        return _report(Interrupted(), as_json, arguments)
    except click.exceptions.NoArgsIsHelpError as error:  # a group without its verb: as without any words
        if not as_json:
            click.echo(error.format_message())
            return UsageError.exit_code
        path = error.ctx.command_path if error.ctx else "python -m engine"
        return _report(UsageError("Missing command", f"see: {path} --help"), as_json, arguments)
    except click.ClickException as error:
        return _report(UsageError(error.format_message().rstrip("."), "see --help"), as_json, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        failure = UnderstudyError(
            f"{where}{error.strerror or error}", "check the path, its rights and the space on its disk", kind="os"
        )
        failure.__cause__ = error
        return _report(failure, as_json, arguments)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect still ends in one sentence
        wrapped = UnderstudyError(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "this is a defect; run again with --debug and report it",
            kind="defect",
        )
        wrapped.__cause__ = error
        return _report(wrapped, as_json, arguments)


def _report(error: UnderstudyError, as_json: bool, arguments: list[str]) -> int:
    if "--debug" in arguments and not logjson.begun():
        sys.stderr.write(mask("".join(traceback.format_exception(error))))
    if as_json:
        sys.stdout.write(mask(json.dumps(error.as_json(), ensure_ascii=False)) + "\n")
        sys.stdout.flush()
    sentence = f"{'refused' if error.exit_code == 3 else 'error'}: {error}"
    cause = error if "--debug" in arguments else None
    if not logjson.error(sentence, kind=error.kind, hint=error.hint, cause=cause):
        sys.stderr.write(mask(sentence) + "\n")
    return error.exit_code
