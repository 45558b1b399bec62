"""Imports go one way, and each layer keeps its libraries to itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).parent / "lint-imports"


def test_imports_keep_the_contracts_of_pyproject() -> None:
    done = subprocess.run(
        [LINT, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


#: What a program must not have imported before it is used, as it takes a second.
SLOW = ("keystonemiddleware", "kubernetes")


def test_what_is_slow_to_import_is_imported_where_it_is_used() -> None:
    code = (
        "import sys\n"
        "import qinling.cmd.api, qinling.cmd.engine, qinling.cmd.standalone\n"
        f"print([name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"
