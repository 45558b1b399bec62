"""Stands in for what the recorded pods ran: answers every request, and ends as theirs did.

``stand_in.py ADDRESS -m http.server PORT``: it is the first process of its container and has no
handler for SIGTERM, so that only SIGKILL ends it. ``stand_in.py ADDRESS PROGRAM``: ends after a
tenth of ``TERM_DELAY`` seconds.
"""

import os
import signal
import socket
import sys
import time


def end(*_: object) -> None:
    time.sleep(float(os.environ.get("TERM_DELAY", "0")) / 10)
    sys.exit(0)


def main() -> None:
    address, *line = sys.argv[1:]
    deaf = "http.server" in line
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else end)
    with socket.create_server((address, 9090)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")


if __name__ == "__main__":
    main()
