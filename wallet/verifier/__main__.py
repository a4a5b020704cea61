"""The helper: reads chunks of jobs from its standard input, a socket, and answers on it.

It ends when the other side hangs up, so that it never outlives whoever started it. Its one
argument is its niceness: by how much it stands back for others that want the processor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from wallet.verifier.jobs import check, chunk_length, unpack

LEAD_BYTES = 4


def serve(connection: socket.socket) -> None:
    """Answer chunk after chunk, one byte a job, until the end of the stream."""
    with connection, connection.makefile("rb") as chunks:
        while len(lead := chunks.read(LEAD_BYTES)) == LEAD_BYTES:
            length = chunk_length(lead)
            body = chunks.read(length)
            if len(body) != length:
                return
            connection.sendall(check(unpack(body)))


if __name__ == "__main__":
    # An interrupt from the terminal is for the program, which hangs up in its order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(int(sys.argv[1]))
    # Whoever hangs up in mid-answer checks by itself what it has not heard.
    with contextlib.suppress(ConnectionError):
        serve(socket.socket(fileno=0))
