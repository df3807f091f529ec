"""Marks the phases of a program that `dlpm trace` measures.

    import dlpm

    with dlpm.phase("train"):       # also as a decorator: @dlpm.phase("train")
        ...
    dlpm.mark("epoch 1")            # a phase that the next dlpm.mark() ends

One file, standard library only (Python 3.8 or newer): put it beside your program. It finds the trace by the variable
DLPM_SOCKET, which `dlpm trace -- python train.py` sets. Where that is not set, or no trace is running any more, nothing
happens. A mark takes some tenths of a millisecond; it never raises, and if the trace hangs it gives up after a second, and
begins no phase for the next ten. Each function says whether the border was made: True, False, or None where the trace has
not answered in time, so that the border may still come, late.

What a border is exact to, and the protocol: docs/phases.md of dlpm.
"""

import contextlib
import logging
import os
import socket
import time

__all__ = ["mark", "begin", "end", "phase"]

_PATIENCE_S = 1.0
_PAUSE_S = 10.0

_log = logging.getLogger("dlpm")
_paused_until = 0.0


def mark(label):
    """Ends the phase that the last mark() began, and begins `label`, at the same moment."""
    return not _paused() and _ask("mark", label)


def begin(label):
    """Begins a phase. Phases can nest and overlap; one that is begun twice has to be ended twice."""
    return not _paused() and _ask("begin", label)


def end(label):
    """Ends a phase, however it was begun."""
    return _ask("end", label)


@contextlib.contextmanager
def phase(label):
    """What runs inside is the phase `label`."""
    begun = begin(label)
    try:
        yield
    finally:
        # One that may have begun, late, has to end, or what follows would be counted to it.
        if begun is not False:
            end(label)


def _paused():
    return time.monotonic() < _paused_until


def _ask(verb, label):
    global _paused_until
    path = os.environ.get("DLPM_SOCKET")
    if not path:
        return False
    try:
        text = str(label)
        if "\n" in text:
            raise ValueError("a label is one line")
        with socket.socket(socket.AF_UNIX) as trace:
            # Each step of the way has this time; in practice only the answer can take any.
            trace.settimeout(_PATIENCE_S)
            trace.connect(path)
            trace.sendall(f"{verb} {text}\n".encode())
            answer = trace.recv(4096).decode(errors="replace").strip()
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
        _log.warning("%s %r: %s", verb, label, answer[len("error ") :])
    return answer.startswith("ok")
