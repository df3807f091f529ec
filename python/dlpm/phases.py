"""Marks the phases of a program that `dlpm trace` measures.

The trace is found by the variable DLPM_SOCKET, which `dlpm trace -- python train.py` sets. If that is not set, or no
trace is running any more, nothing happens.

A mark takes some tenths of a millisecond. It never raises. If the trace hangs, it gives up after a second, and begins
no phase for the next ten. A trace takes 200 marks a second on average and refuses more. Each function says whether the
border was made: True, False, or None if the trace has not answered in time, so that the border may still come, late.

How exact a border is, and the protocol: docs/phases.md of dlpm.
"""

from __future__ import annotations


import contextlib
import os
import socket
import time
from typing import Iterator, Optional

from ._log import PAUSE_S as _PAUSE_S
from ._log import log as _log
from ._log import rarely

__all__ = ["mark", "begin", "end", "phase"]

_PATIENCE_S = 1.0
_ANSWER_BYTES = 4096

_paused_until = 0.0


def mark(label: object) -> Optional[bool]:
    """Ends the phase that the last mark() began, and begins `label`, at the same moment."""
    return not _paused() and _ask("mark", label)


def begin(label: object) -> Optional[bool]:
    """Begins a phase. Phases can nest and overlap; one that is begun twice has to be ended twice."""
    return not _paused() and _ask("begin", label)


def end(label: object) -> Optional[bool]:
    """Ends a phase, however it was begun."""
    return _ask("end", label)


@contextlib.contextmanager
def phase(label: object) -> Iterator[None]:
    """What runs inside is the phase `label`."""
    begun = begin(label)
    try:
        yield
    finally:
        # One that may have begun, late, has to end, or what follows would be counted to it.
        if begun is not False:
            end(label)


def _paused() -> bool:
    return time.monotonic() < _paused_until


def _answer(trace: socket.socket, deadline: float) -> str:
    """The line that the trace says: all of it within the deadline, however slowly it comes."""
    answer = b""
    while b"\n" not in answer and len(answer) < _ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout()
        trace.settimeout(left)
        part = trace.recv(_ANSWER_BYTES)
        if not part:
            break
        answer += part
    return answer.decode(errors="replace").strip()


def _ask(verb: str, label: object) -> Optional[bool]:
    global _paused_until
    path = os.environ.get("DLPM_SOCKET")
    if not path:
        return False
    try:
        text = str(label)
        if "\n" in text:
            raise ValueError("a label is one line")
        with socket.socket(socket.AF_UNIX) as trace:
            deadline = time.monotonic() + _PATIENCE_S
            trace.settimeout(_PATIENCE_S)
            trace.connect(path)
            trace.sendall(f"{verb} {text}\n".encode())
            answer = _answer(trace, deadline)
    except (FileNotFoundError, ConnectionError):
        return False  # The trace has ended.
    except (socket.timeout, BlockingIOError):
        _paused_until = time.monotonic() + _PAUSE_S
        _log.warning("%s %r: the trace does not answer", verb, label)
        return None
    except Exception as error:  # Whatever is wrong with a mark, the program that is measured goes on.
        _log.warning("%s %r: %s", verb, label, error)
        return False
    if answer.startswith("error"):
        reason = answer[len("error ") :]
        if "too fast" in reason:
            rarely("too fast", "%s %r: %s", verb, label, reason)  # A loop may be refused a thousand times.
        else:
            _log.warning("%s %r: %s", verb, label, reason)
    return answer.startswith("ok")
