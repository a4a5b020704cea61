"""Structured logs: one JSON line each, with an `action` and identifiers.

Never keys or tokens, nor an amount beside a name.
"""

from __future__ import annotations

import datetime
import logging
import sys
from typing import TextIO

import msgspec

Field = str | int | bool | None
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Log:
    """Writes actions of one part of the program."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"cbdc.{name}")

    def info(self, action: str, **fields: Field) -> None:
        """What an operator may want to know."""
        self._logger.info(action, extra={"fields": fields})

    def warning(self, action: str, **fields: Field) -> None:
        """What an operator should look at."""
        self._logger.warning(action, extra={"fields": fields})

    def error(self, action: str, *, cause: BaseException, **fields: Field) -> None:
        """What must not happen. The trace of `cause` goes into the log, never to a client."""
        traced = (type(cause), cause, cause.__traceback__)
        self._logger.error(action, extra={"fields": fields}, exc_info=traced)


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, part and action first, then the action's own fields."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("cbdc."),
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            # Other people's libraries write sentences.
            line |= {"action": "library-message", "message": record.getMessage()}
        else:
            line |= {"action": record.msg, **fields}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _encode(line).decode()


def start_logging(level: str, *, stream: TextIO | None = None) -> None:
    """Send all logs of this process to a stream, the standard error output by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("cbdc").setLevel(level.upper())
