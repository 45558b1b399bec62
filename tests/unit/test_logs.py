"""Lines of the log: what their author wrote, once."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from oslo_log import log
from qinling import conf, exceptions
conf.load(sys.argv[1:], "qinling-test", files=())
LOG = log.getLogger("qinling.test")
try:
    raise exceptions.QinlingError("the bus is away")
except exceptions.QinlingError as error:
    LOG.warning("Trying again: %s", error)
    LOG.info("Trying again soon")
    try:
        raise RuntimeError("a mistake")
    except RuntimeError:
        LOG.exception("It failed")
"""


def lines(*argv: str | Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *argv],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stderr.splitlines()


def test_a_warning_that_is_made_while_an_error_is_handled_tells_it_once() -> None:
    warning, info = lines()[:2]
    assert warning.endswith(" WARNING qinling.test [-] Trying again: the bus is away")
    assert info.endswith(" INFO qinling.test [-] Trying again soon")


def test_a_traceback_is_there_when_it_is_asked_for_with_its_summary_in_front() -> None:
    said = lines()[2:]
    assert said[0].endswith(" It failed: RuntimeError: a mistake")
    assert any("Traceback" in line for line in said)


def test_a_format_of_the_operators_own_holds(tmp_path: Path) -> None:
    file = tmp_path / "qinling.conf"
    file.write_text(
        "[DEFAULT]\nlogging_default_format_string = %(levelname)s|%(message)s|%(error_summary)s\n"
    )
    said = lines("--config-file", file)
    assert said[0] == "WARNING|Trying again: the bus is away|"
    assert said[2] == "ERROR|It failed|RuntimeError: a mistake"
