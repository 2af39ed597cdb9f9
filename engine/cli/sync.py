"""`sync`: one look at the source, or one every `source.poll_minutes`; notifies of what it did."""

from __future__ import annotations

import time
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import UnderstudyError, UsageError
from engine.notify.slots import check_served
from engine.store.events import append_event
from engine.store.logfile import log_path
from engine.sync.sync import NothingAdmissible
from engine.sync.sync import sync as look
from engine.training.alerts import check_runs


@click.command(cls=Verb)
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--watch", is_flag=True, help="Go on looking every source.poll_minutes until stopped.")
@click.option("--wait", is_flag=True, help="Wait for another sync instead of failing.")
@click.option(
    "--pin", metavar="SHA256:...", help="First make the unknown SSH host key with this fingerprint known."
)
def sync(session: Session, dry_run: bool, watch: bool, wait: bool, pin: str | None) -> None:
    """Look at the source; take a changed best checkpoint, checked, to TO-BE."""
    if pin:
        _pin(session, pin, dry_run)
    port = session.settings.port("tobe")
    session.log_to(log_path(session.workspace, "sync"))
    if not watch:
        session.emit(_once(session, dry_run, wait), lambda result: _text(result, port))
        return
    pause_s = session.settings.source.poll_minutes * 60
    while True:
        began = time.monotonic()
        try:
            session.emit(_once(session, dry_run, wait), lambda result: _text(result, port))
        except UsageError:
            raise
        except UnderstudyError as error:
            session.emit(error.as_json(), f"error: {error}")
        time.sleep(max(0.0, began + pause_s - time.monotonic()))


def _pin(session: Session, fingerprint: str, dry_run: bool) -> None:
    place = session.settings.source
    if place.kind != "ssh" or not place.host or dry_run:
        raise UsageError(
            "--pin is for a source.kind of ssh with a source.host, and not for --dry-run",
            "set them, or leave it out",
        )
    import asyncio

    from engine.sync.ssh import pin

    file = asyncio.run(pin(place, fingerprint))
    if file:
        append_event(session.workspace, "pinned", str(place.host), {"fingerprint": fingerprint, "file": file})
    session.say(f"pinned {fingerprint} in {file}" if file else "the host's key is known already")


def _once(session: Session, dry_run: bool, wait: bool) -> dict[str, Any]:
    news: list[tuple[str, str, str]] = []
    if not dry_run:
        check_runs(session.workspace, session.settings)  # cron comes by even where nobody watches
        check_served(session.workspace, session.settings)
        if (session.workspace.root / "cloud").is_dir():
            from engine.cloud.machines import start_missing_guards

            start_missing_guards(session.workspace, session.engine_command)
    try:
        result = look(
            session.workspace,
            session.settings,
            dry_run=dry_run,
            wait=wait,
            say=session.say,
            alert=lambda subject, text, fix: news.append((subject, text, fix)),
        )
    except UnderstudyError as error:
        if isinstance(error, NothingAdmissible):
            for item in error.payload["skipped"]:
                session.say(_skipped(item))
        _notify(session, news, None)
        raise
    if result["deployed"]:
        from engine.release.prune import prune_if_asked

        result["pruned"] = prune_if_asked(session.workspace, session.settings)
        session.tell_registry()
    _notify(session, news, result if result["deployed"] else None)
    return result


def _notify(session: Session, news: list[tuple[str, str, str]], result: dict[str, Any] | None) -> None:
    """Send what somebody should hear of; a message that cannot be sent never fails a sync."""
    if not news and result is None:
        return
    from engine.notify import messages, notify

    texts = [("alert", messages.alert_message(subject, text, fix=fix)) for subject, text, fix in news]
    if result is not None:
        texts.append(("deployed", _deployed_message(session, result)))
    for kind, text in texts:
        notify(session.workspace, session.settings, kind, text)


def _deployed_message(session: Session, result: dict[str, Any]) -> str:
    from engine.notify.messages import deployed_message
    from engine.release.bundle import read_release, release_path

    candidate, source = result["candidate"], session.settings.source
    manifest = read_release(release_path(session.workspace, result["release"])).manifest
    return deployed_message(
        cycle=manifest.checkpoint.cycle,
        name=manifest.architecture["name"],
        path=candidate["path"],
        md5=candidate["md5"],
        release=result["release"],
        port=session.settings.port("tobe"),
        accuracy=manifest.checkpoint.accuracy,
        host=source.host if source.kind == "ssh" else None,
    )


def _text(result: dict[str, Any], port: int) -> str:
    candidate = result["candidate"]
    lines = [_skipped(item) for item in result["skipped"]]
    if candidate is None:
        return "\n".join([*lines, "nothing there to take"])
    cycle = f"cycle {candidate['cycle']}" if candidate["cycle"] is not None else "combined"
    what = f"{candidate['path']} ({cycle}, md5 {candidate['md5'][:8]}, {candidate['bytes'] / 1e6:.1f} MB)"
    if result["deployed"]:
        lines.append(f"deployed to TO-BE ({port}): {what}")
        lines.append(f"release {result['release'][:8]}, in {result['seconds_s']:.1f} s")
    elif not result["changed"]:
        lines.append(f"nothing new: {what}")
    elif any(item["path"] == candidate["path"] for item in result["skipped"]):
        lines.append(f"not taken now: {what}")
    else:
        lines.append(f"would be taken: {what}")
    return "\n".join(lines)


def _skipped(item: dict[str, str]) -> str:
    return f"passed over: {item['path']}: {item['reason']}"
