"""``qinling-standalone`` that writes down its modules when it has answered, and ends.

A program of its own: its first argument is the file to write to, the second the port, and what
follows goes to qinling-standalone.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from tests.bench import wire


def tell(output: Path, port: int) -> None:
    wire.wait_for_answer(port, wire.request("GET", "/v1/runtimes"))
    # Not what this program itself has brought.
    names = [name for name in sys.modules if name.partition(".")[0] not in ("__main__", "tests")]
    output.write_text("\n".join(names))
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _, file, number, *rest = sys.argv
    sys.argv[1:] = ["--port", number, *rest]
    threading.Thread(target=tell, args=(Path(file), int(number)), daemon=True).start()
    from qinling.cmd import standalone

    sys.exit(standalone.main())
