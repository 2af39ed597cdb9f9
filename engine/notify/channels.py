"""The three channels and how one message is posted to each. Nothing here raises or says a secret."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import socket
import time
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from engine.config import Settings, mask, secret
from engine.errors import UnderstudyError

if TYPE_CHECKING:
    import httpx

DISCORD_LIMIT = 2000  # characters of `content`, discord.com/developers/docs/resources/webhook
TELEGRAM_LIMIT = 4096  # characters of `text`, core.telegram.org/bots/api#sendmessage
WEBHOOK_LIMIT = 16_000
SIGNATURE = "x-understudy-signature"
_ANSWER_BYTES = 64 * 1024
_LONGEST_PAUSE_S = 24 * 3600.0


@dataclass(frozen=True)
class Message:
    """One message: the same `id` each time it is sent, `repeat` where it may have arrived before."""

    id: str
    kind: str
    text: str
    at: str
    repeat: bool = False


@dataclass(frozen=True)
class Channel:
    """A configured channel; `problem` says why it cannot be used."""

    name: str
    url: str = ""
    body: tuple[tuple[str, Any], ...] = ()
    text_key: str = "content"
    limit: int = DISCORD_LIMIT
    key: str | None = None  # what the generic webhook's bodies are signed with
    problem: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one post: `problem` is None when it arrived; `pause_s`: the service wants no post before."""

    problem: str | None = None
    pause_s: float = 0.0


def configured(settings: Settings) -> list[Channel]:
    """The channels whose secrets are set; half a Telegram, an unsigned webhook and a secret that its reference does
    not lead to are ones with a problem."""
    channels = []
    for name, channel in (("discord", _discord), ("telegram", _telegram), ("webhook", _webhook)):
        try:
            channels.append(channel(settings))
        except UnderstudyError as error:
            channels.append(Channel(name, problem=str(error)))
    return [channel for channel in channels if channel is not None]


def _discord(settings: Settings) -> Channel | None:
    webhook = secret("DISCORD_WEBHOOK_URL")
    # A model's name must not be able to call @everyone.
    return Channel("discord", webhook, (("allowed_mentions", {"parse": []}),)) if webhook else None


def _telegram(settings: Settings) -> Channel | None:
    token, chat = secret("TELEGRAM_BOT_TOKEN"), secret("TELEGRAM_CHAT_ID")
    if token and chat:
        url = f"{settings.notify.telegram_api.rstrip('/')}/bot{token}/sendMessage"
        body = (("chat_id", chat), ("link_preview_options", {"is_disabled": True}))
        return Channel("telegram", url, body, "text", TELEGRAM_LIMIT)
    missing = "TELEGRAM_CHAT_ID" if token else "TELEGRAM_BOT_TOKEN"
    return Channel("telegram", problem=f"{missing} is not set") if token or chat else None


def _webhook(settings: Settings) -> Channel | None:
    address = secret("WEBHOOK_URL")
    if not address:
        return None
    key = secret("WEBHOOK_SECRET")
    problem = None if key else "WEBHOOK_SECRET is not set; nothing goes out unsigned"
    return Channel("webhook", address, (), "text", WEBHOOK_LIMIT, key, problem)


def post(channel: Channel, message: Message, timeout_s: float) -> Outcome:
    """Post a message to the channel within about `timeout_s`.

    A 429 or 503 with Retry-After is tried once more after it where that still fits into the time; a longer
    pause is handed back, and the caller leaves the channel alone so long.
    """
    if channel.problem:
        return Outcome(channel.problem)
    import httpx

    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)  # at INFO they log the address, which is the secret
    ends = time.monotonic() + timeout_s
    try:
        with httpx.Client(timeout=timeout_s, follow_redirects=False) as client:
            status, answer, headers = _send(client, channel, message, ends)
            if status == 429 or (status == 503 and "retry-after" in headers):
                pause = _retry_after(headers.get("retry-after"), answer)
                if time.monotonic() + pause >= ends:
                    return Outcome(f"asks to wait {pause:.0f} s; it goes out later", pause)
                time.sleep(pause)
                client.timeout = max(0.1, ends - time.monotonic())
                status, answer, headers = _send(client, channel, message, ends)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        return Outcome("its address is not a web address; check the secret")
    except httpx.TimeoutException:
        return Outcome(f"no answer within {timeout_s:g} s")
    except httpx.HTTPError as error:  # its text holds the address, so only its kind is said
        return Outcome(f"cannot be reached ({type(error).__name__})")
    if status == 429:
        return Outcome("asks to wait again; it goes out later", _retry_after(headers.get("retry-after"), answer))
    return Outcome(None if 200 <= status < 300 else _refusal(status, answer))


def sign(key: str, body: bytes, at: int) -> str:
    """The generic webhook's signature header: `t=SECONDS,v1=HEX`, HMAC-SHA256 over "SECONDS.BODY".

    The time is signed too, so that a receiver can turn away an old body that is played again
    (the scheme of docs.stripe.com/webhooks/signature).
    """
    digest = hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters as the services count them (UTF-16 units), with an ellipsis where cut."""
    units = text.encode("utf-16-le")
    if len(units) // 2 <= limit:
        return text
    return units[: (limit - 1) * 2].decode("utf-16-le", errors="ignore") + "…"


def _words(channel: Channel, message: Message) -> str:
    """What people read: the text, with its id at the end, so that a repeat can be told."""
    again = f"(sent again, from {message.at[:16].replace('T', ' ')}) " if message.repeat else ""
    foot = f"\nmessage {message.id}"
    return shorten(again + message.text, channel.limit - len(foot)) + foot


def _send(
    client: httpx.Client, channel: Channel, message: Message, ends: float
) -> tuple[int, dict[str, Any], dict[str, str]]:
    import httpx

    headers = {"content-type": "application/json"}
    if channel.key:
        value = {**asdict(message), "text": shorten(message.text, channel.limit), "host": socket.gethostname()}
        body = json.dumps(value, ensure_ascii=False).encode()
        headers |= {SIGNATURE: sign(channel.key, body, int(time.time())), "x-understudy-id": message.id}
    else:
        body = json.dumps({channel.text_key: _words(channel, message), **dict(channel.body)}).encode()
    with client.stream("POST", channel.url, content=body, headers=headers) as response:
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
            seconds = float(choice)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if math.isfinite(seconds):
            return min(max(0.0, seconds), _LONGEST_PAUSE_S)
    try:  # RFC 9110 allows a date as well
        return min(max(0.0, parsedate_to_datetime(header or "").timestamp() - time.time()), _LONGEST_PAUSE_S)
    except (TypeError, ValueError):
        return 1.0


def _refusal(status: int, answer: dict[str, Any]) -> str:
    said = answer.get("description") or answer.get("message")
    hints = {401: "check the secret", 403: "the bot may not write there", 404: "the webhook or bot is gone"}
    words = [str(said)] if isinstance(said, str) else []
    words += [hints[status]] if status in hints else []
    return mask(f"answered {status}" + (f": {'; '.join(words)}" if words else ""))[:300]
