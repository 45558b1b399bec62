#!/usr/bin/env bash
# Runs all tests, or those that the arguments, which go to pytest, ask for. Installs first what they
# need: the project with what its tests and its documentation require, Keystone and OpenStack's
# client (each in a virtual environment of the checkout), and from Debian's packages the servers of
# MariaDB and RabbitMQ, openssl, Node.js for functions in JavaScript, and systemd, which need not
# run, for its check of units.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/venv.sh

lock
project_venv test docs
make_venv .venv-keystone 'Keystone' base tools/constraints-keystone.txt \
    -- -c tools/constraints-keystone.txt keystone waitress
make_venv .venv-client "OpenStack's client" base tools/constraints-client.txt \
    -- -c tools/constraints-client.txt python-openstackclient python-qinlingclient
debian_packages 'the database, the broker, certificates, Node.js and the check of units' \
    mariadb-server rabbitmq-server openssl nodejs systemd
unlock

# Side by side, a file in one process: much of a test's time is spent waiting. Each process has
# services of its own, so that many of them would only be in each other's way.
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile "$@"
