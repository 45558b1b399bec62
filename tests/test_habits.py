"""The checks of the code, and the documents: what `tox -e pep8`, `docs`, `api-ref` and
`releasenotes` run, taken from tox.ini and run with the tests."""

import configparser
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def commands(environment: str) -> list[list[str]]:
    """What a tox environment runs."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    text = parser[f"testenv:{environment}"]["commands"].replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


CHECKS = [
    pytest.param(command, id=f"{environment}: {' '.join(command[:2])}")
    for environment in ("pep8", "docs", "api-ref", "releasenotes")
    for command in commands(environment)
]


def test_the_checks_are_those_that_a_change_has_to_pass() -> None:
    programs = [check.values[0][0] for check in CHECKS]  # type: ignore[index]
    assert programs == ["ruff", "ruff", "mypy", "lint-imports", "bandit", *["sphinx-build"] * 3]
    for check in CHECKS[5:]:
        assert "-W" in check.values[0]  # type: ignore[operator]


@pytest.mark.parametrize("command", CHECKS)
def test_a_check_finds_nothing(command: list[str]) -> None:
    program = BIN / command[0]
    assert program.exists(), f"{command[0]} is not installed; tools/test.sh makes a .venv with it"
    done = subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
