"""Marks the phases of a program that `dlpm trace` measures.

    import dlpm

    with dlpm.phase("train"):       # also as a decorator: @dlpm.phase("train")
        ...
    dlpm.mark("epoch 1")            # a phase that the next dlpm.mark() ends

One file, standard library only (Python 3.8 or newer): put it next to your program; the Debian package of dlpm installs
it for all programs. It finds the trace by the variable DLPM_SOCKET, which `dlpm trace -- python train.py` sets. If that
is not set, or no trace is running any more, nothing happens.

A mark takes some tenths of a millisecond. It never raises. If the trace hangs, it gives up after a second, and begins
no phase for the next ten. A trace takes 200 marks a second on average and refuses more. Each function says whether the
border was made: True, False, or None if the trace has not answered in time, so that the border may still come, late.

How exact a border is, and the protocol: docs/phases.md of dlpm.
"""

import contextlib
import logging
import os
import socket
import time

__all__ = ["mark", "begin", "end", "phase"]

_PATIENCE_S = 1.0
_PAUSE_S = 10.0
_ANSWER_BYTES = 4096

_log = logging.getLogger("dlpm")
_paused_until = 0.0
_quiet_until = 0.0


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


def _answer(trace, deadline):
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


def _refused(verb, label, reason):
    """A loop that is refused a thousand times logs that once in a while."""
    global _quiet_until
    if time.monotonic() >= _quiet_until:
        _quiet_until = time.monotonic() + _PAUSE_S
        _log.warning("%s %r: %s (no more such warnings for %d s)", verb, label, reason, _PAUSE_S)


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
            _refused(verb, label, reason)
        else:
            _log.warning("%s %r: %s", verb, label, reason)
    return answer.startswith("ok")
