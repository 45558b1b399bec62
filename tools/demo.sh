#!/usr/bin/env bash
# Runs the main job: installs Qinling into .venv, starts it and shows a runtime's life.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/venv.sh

lock
project_venv
unlock
exec .venv/bin/python tools/demo.py "$@"
