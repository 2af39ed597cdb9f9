"""Messages to people: Discord and Telegram. A message that fails never fails the work it tells of."""

from engine.notify.send import notify

__all__ = ["notify"]
