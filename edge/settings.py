"""What changed in the configuration since the last start, for the audit trail.

The configuration holds no secret: those stand in files of their own, of which it has the names.
"""

from __future__ import annotations

import hashlib

import msgspec

from edge.config import Config
from wallet.store.connection import Connection
from wallet.store.meta import get_meta, put_meta

_NAME = "configuration"


def flat_settings(config: Config) -> dict[str, str]:
    """Each key with its value as text, such as `listen.port`."""
    settings: dict[str, str] = {}
    for section, value in msgspec.to_builtins(config, enc_hook=str).items():
        if isinstance(value, dict):
            settings |= {f"{section}.{key}": _text(inner) for key, inner in value.items()}
        else:
            settings[section] = _text(value)
    return settings


def note_settings(connection: Connection, config: Config) -> dict[str, str | int | bool | None]:
    """Remember the settings; gives their hash, and what changed since they were remembered."""
    settings = flat_settings(config)
    encoded = msgspec.json.encode(settings, order="deterministic")
    stored = get_meta(connection, _NAME)
    put_meta(connection, _NAME, encoded)
    before = {} if stored is None else msgspec.json.decode(stored, type=dict[str, str])
    changes = [
        f"{key}: {before.get(key, '-')} -> {settings.get(key, '-')}"
        for key in sorted(before.keys() | settings.keys())
        if before and before.get(key) != settings.get(key)
    ]
    return {"sha256": hashlib.sha256(encoded).hexdigest(), "changed": "; ".join(changes) or None}


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
