"""The two channels and how one message is posted to each. Nothing here raises or says a secret."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.config import Settings, mask, secret

if TYPE_CHECKING:
    import httpx

DISCORD_LIMIT = 2000  # characters of `content`, discord.com/developers/docs/resources/webhook
TELEGRAM_LIMIT = 4096  # characters of `text`, core.telegram.org/bots/api#sendmessage
_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Channel:
    """A configured channel; `problem` says why it cannot be used."""

    name: str
    url: str = ""
    body: tuple[tuple[str, Any], ...] = ()
    text_key: str = "content"
    limit: int = DISCORD_LIMIT
    problem: str | None = None


def configured(settings: Settings) -> list[Channel]:
    """The channels whose secrets are set; half a Telegram is one with a problem."""
    channels = []
    if webhook := secret("DISCORD_WEBHOOK_URL"):
        # A model's name must not be able to call @everyone.
        channels.append(Channel("discord", webhook, (("allowed_mentions", {"parse": []}),)))
    token, chat = secret("TELEGRAM_BOT_TOKEN"), secret("TELEGRAM_CHAT_ID")
    if token and chat:
        url = f"{settings.notify.telegram_api.rstrip('/')}/bot{token}/sendMessage"
        body = (("chat_id", chat), ("link_preview_options", {"is_disabled": True}))
        channels.append(Channel("telegram", url, body, "text", TELEGRAM_LIMIT))
    elif token or chat:
        missing = "TELEGRAM_CHAT_ID" if token else "TELEGRAM_BOT_TOKEN"
        channels.append(Channel("telegram", problem=f"{missing} is not set"))
    return channels


def post(channel: Channel, text: str, timeout_s: float) -> str | None:
    """Post `text` to the channel within about `timeout_s`; None when it arrived, else why it did not.

    A 429 is tried once more after its Retry-After where that still fits into the time.
    """
    if channel.problem:
        return channel.problem
    import httpx

    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)  # at INFO they log the address, which is the secret
    ends = time.monotonic() + timeout_s
    body = {channel.text_key: shorten(text, channel.limit), **dict(channel.body)}
    try:
        with httpx.Client(timeout=timeout_s, follow_redirects=False) as client:
            status, answer, headers = _send(client, channel.url, body, ends)
            if status == 429:
                pause = _retry_after(headers.get("retry-after"), answer)
                if time.monotonic() + pause >= ends:
                    return f"asks to wait {pause:.0f} s; it goes out later"
                time.sleep(pause)
                client.timeout = max(0.1, ends - time.monotonic())
                status, answer, headers = _send(client, channel.url, body, ends)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        return "its address is not a web address; check the secret"
    except httpx.TimeoutException:
        return f"no answer within {timeout_s:g} s"
    except httpx.HTTPError as error:  # its text holds the address, so only its kind is said
        return f"cannot be reached ({type(error).__name__})"
    return None if 200 <= status < 300 else _refusal(status, answer)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters as the services count them (UTF-16 units), with an ellipsis where cut."""
    units = text.encode("utf-16-le")
    if len(units) // 2 <= limit:
        return text
    return units[: (limit - 1) * 2].decode("utf-16-le", errors="ignore") + "…"


def _send(
    client: httpx.Client, url: str, body: dict[str, Any], ends: float
) -> tuple[int, dict[str, Any], dict[str, str]]:
    import httpx

    with client.stream("POST", url, json=body) as response:
        content = b""
        for block in response.iter_bytes():
            content += block
            if len(content) > _ANSWER_BYTES:
                break
            if time.monotonic() > ends:
                raise httpx.ReadTimeout("slow answer")
    try:
        answer = json.loads(content or b"{}")
    except ValueError:
        answer = {}
    return response.status_code, answer if isinstance(answer, dict) else {}, dict(response.headers)


def _retry_after(header: str | None, answer: dict[str, Any]) -> float:
    """Seconds to wait: Discord says it in its body to the millisecond, Telegram under `parameters`."""
    nested = answer.get("parameters")
    choices = (answer.get("retry_after"), nested.get("retry_after") if isinstance(nested, dict) else None, header)
    for choice in choices:
        try:
            return max(0.0, float(choice))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
    return 1.0


def _refusal(status: int, answer: dict[str, Any]) -> str:
    said = answer.get("description") or answer.get("message")
    hints = {401: "check the secret", 403: "the bot may not write there", 404: "the webhook or bot is gone"}
    words = [str(said)] if isinstance(said, str) else []
    words += [hints[status]] if status in hints else []
    return mask(f"answered {status}" + (f": {'; '.join(words)}" if words else ""))[:300]
