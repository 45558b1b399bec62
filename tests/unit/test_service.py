"""How a program ends."""

import subprocess
import sys

# The kernel hands a signal to whichever thread it likes; here it is not the main one, which sleeps.
SCRIPT = """
import signal, sys, threading
from qinling.cmd import service

class Part:
    def start(self): pass
    def stop(self): print("stopped")

def hand_over():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

later = threading.Timer(0.2, hand_over)
sys.exit(service.Process().run([Part()], later.start))
"""


def test_a_signal_that_another_thread_gets_ends_the_program() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], timeout=30, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr
