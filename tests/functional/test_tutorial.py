"""The user's tutorial, command for command, with what it says that they print."""

import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.deployment import Standalone
from tests.fixtures.process import plain_environment, venv_program
from tests.fixtures.worker import Worker

USER = Path(__file__).parents[2] / "doc" / "source" / "user"
#: Where the tutorial has its Qinling, and what is there before it begins.
URL = "http://127.0.0.1:7070"
DONE_BEFORE = "pip install "
_BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1 {3}.*\n|\n)+)", re.MULTILINE)
_MARK = "--- the next command ---"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Kind and text of each block of code."""
    for _, kind, text in _BLOCK.findall(page.read_text()):
        yield kind, textwrap.dedent(text).strip("\n")


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """What a reader does: each a piece of shell, and what it prints."""
    for kind, text in blocks(page):
        if kind == "python":
            yield f"cat > main.py <<'END'\n{text}\nEND", ""
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            # A command goes on where its line ends in a backslash.
            found = re.match(r"(?:.*\\\n)*.*", part)
            assert found is not None
            if not part.startswith(DONE_BEFORE):
                yield found[0], part[found.end() :].strip("\n")


@pytest.fixture
def reader(tmp_path: Path) -> dict[str, str]:
    """The environment of a reader."""
    programs = venv_program(".venv-client", "openstack").parent
    environment = plain_environment(tmp_path)
    return environment | {"PATH": f"{programs}:{environment['PATH']}"}


def test_the_tutorial_is_as_it_says(
    standalone: Standalone, reader: dict[str, str], tmp_path: Path
) -> None:
    done = list(steps(USER / "tutorial.rst"))
    script = "".join(f"{command}\necho '{_MARK}'\n" for command, _ in done)
    folder = tmp_path / "reader"
    folder.mkdir()
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(URL, standalone.url)],
        cwd=folder,
        env=reader,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    printed = ran.stdout.split(f"{_MARK}\n")
    for (command, expected), text in zip(done, printed, strict=False):
        pattern = re.escape(expected).replace("…", ".*")
        assert re.fullmatch(pattern, text.rstrip("\n")), f"$ {command}\n{text}"
    assert len(done) > 20


def test_the_examples_of_how_to_write_functions_run() -> None:
    logged, cached = [text for kind, text in blocks(USER / "writing.rst") if kind == "python"]
    with Worker() as worker:
        worker.specialize(logged)
        ended = worker.run('{"a": 1}')
        assert (ended["status"], ended["log"]) == (
            "success",
            "INFO:root:called with ['a', 'context']\n",
        )
    with Worker() as worker:
        worker.specialize(cached)
        assert worker.run('{"key": "a"}')["output"] == "A"
