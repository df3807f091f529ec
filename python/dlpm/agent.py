"""The socket of the agent, as docs/socket.md of dlpm describes it: HTTP 1.0 and JSON."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, Optional

#: Where the agent listens, unless the variable DLPM_AGENT names another place.
DEFAULT_PATH = "/run/dlpm/agent.sock"

_HEAD_BYTES = 16 << 10
_ANSWER_BYTES = 1 << 20
_LINE_BYTES = 64 << 20
_PIECE_BYTES = 64 << 10


class AgentError(Exception):
    """The agent said no, or said nothing. The text is a sentence for the user."""


class NoAgent(AgentError):
    """There is no agent at that path."""


class Silent(AgentError):
    """The agent did not answer in time."""


def path() -> str:
    """The socket's path."""
    return os.environ.get("DLPM_AGENT") or DEFAULT_PATH


def ask(where: str, method: str, target: str, deadline: float) -> Any:
    """The answer to a request without a body, as JSON. `where` is the socket, `deadline` a time.monotonic()."""
    connection = _Connection(where, deadline)
    try:
        connection.request(method, target, b"", deadline)
        return json.loads(connection.line(deadline, _ANSWER_BYTES) or b"null")
    finally:
        connection.close()


class Recording:
    """A recording of the agent: from its first border, which is made when this returns, to its end."""

    def __init__(self, where: str, request: Any, deadline: float):
        self.where = where
        self._connection = _Connection(where, deadline)
        try:
            self._connection.request("POST", "/v1/recordings", json.dumps(request).encode(), deadline)
            first = self.line(deadline)
            if first is None:
                raise AgentError("the agent stopped")
            self.id = int(first["recording"]["id"])
            self.begin_ns = int(first["recording"]["begin_ns"])
        except BaseException:
            self._connection.close()
            raise

    def end(self, deadline: float) -> None:
        """Ends it at this moment. Its last lines are read afterwards."""
        ask(self.where, "DELETE", "/v1/recordings/%d" % self.id, deadline)

    def line(self, deadline: float) -> Any:
        """The next line of its stream as JSON; None where the stream breaks off."""
        line = self._connection.line(deadline, _LINE_BYTES)
        return None if line is None else json.loads(line)

    def close(self) -> None:
        """Gives the connection up, in this process alone: a process that inherited it keeps its own."""
        self._connection.close()


class _Connection:
    def __init__(self, where: str, deadline: float):
        self._rest = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._wait_until(deadline)
            self._socket.connect(where)
        except (socket.timeout, BlockingIOError):
            self.close()
            raise Silent("the agent at %s does not answer" % where) from None
        except OSError as error:
            self.close()
            raise NoAgent(error.strerror or str(error)) from None
        except BaseException:
            self.close()
            raise

    def request(self, method: str, target: str, body: bytes, deadline: float) -> None:
        """Sends a request and reads the head of its answer."""
        head = "%s %s HTTP/1.0\r\nhost: dlpm\r\ncontent-length: %d\r\n\r\n" % (method, target, len(body))
        try:
            self._wait_until(deadline)
            self._socket.sendall(head.encode() + body)
        except socket.timeout:
            raise Silent("the agent does not answer") from None
        except OSError as error:
            raise AgentError("the agent stopped (%s)" % error.strerror) from None
        status = self._until(b"\r\n\r\n", deadline, _HEAD_BYTES)
        parts = (status or b"").split(None, 2)
        if len(parts) < 2:
            raise AgentError("the agent stopped")
        if parts[1] != b"200":
            raise AgentError(_sentence(self.line(deadline, _ANSWER_BYTES)))

    def line(self, deadline: float, limit: int) -> Optional[bytes]:
        """The next line of the answer, without its end; None if there is no whole one."""
        return self._until(b"\n", deadline, limit)

    def _until(self, end: bytes, deadline: float, limit: int) -> Optional[bytes]:
        searched = 0
        while True:
            at = self._rest.find(end, max(0, searched - len(end)))
            if at >= 0:
                whole = bytes(self._rest[:at])
                del self._rest[: at + len(end)]
                return whole
            searched = len(self._rest)
            if searched > limit:
                raise AgentError("the agent said more than %d bytes at once" % limit)
            self._wait_until(deadline)
            try:
                piece = self._socket.recv(_PIECE_BYTES)
            except socket.timeout:
                raise Silent("the agent does not answer") from None
            except OSError:
                piece = b""
            if not piece:
                return None
            self._rest += piece

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Silent("the agent does not answer")
        self._socket.settimeout(left)

    def close(self) -> None:
        self._socket.close()


def _sentence(body: Optional[bytes]) -> str:
    try:
        return str(json.loads(body or b"")["error"])
    except (ValueError, KeyError, TypeError):
        return "the agent refused, without a reason"
