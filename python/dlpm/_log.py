"""Warnings that do not flood: the logger `dlpm` of the standard library's logging."""

from __future__ import annotations

import logging
import time
from typing import Dict

#: How long the same warning is not repeated, in seconds.
PAUSE_S = 10.0

log = logging.getLogger("dlpm")
_quiet_until: Dict[str, float] = {}


def rarely(kind: str, message: str, *details: object) -> None:
    """Warns, unless it did so of this `kind` in the last PAUSE_S seconds."""
    now = time.monotonic()
    if now >= _quiet_until.get(kind, 0.0):
        _quiet_until[kind] = now + PAUSE_S
        log.warning(message + " (no more such warnings for %d s)", *details, PAUSE_S)


def once(kind: str, message: str, *details: object) -> None:
    """Warns once in the life of this process."""
    if kind not in _quiet_until:
        _quiet_until[kind] = float("inf")
        log.warning(message, *details)
