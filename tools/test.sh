#!/usr/bin/env bash
# Runs all tests, or those that the arguments, which go to pytest, ask for. Installs first what they
# need: the project with its test requirements, Keystone and OpenStack's client (each in a virtual
# environment of the checkout), and the servers of MariaDB and RabbitMQ from Debian's packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/venv.sh

lock
project_venv test
make_venv .venv-keystone 'Keystone' base tools/constraints-keystone.txt \
    -- -c tools/constraints-keystone.txt keystone waitress
make_venv .venv-client "OpenStack's client" base tools/constraints-client.txt \
    -- -c tools/constraints-client.txt python-openstackclient python-qinlingclient
debian_packages 'the database and broker' mariadb-server rabbitmq-server
unlock

exec .venv/bin/python -m pytest "$@"
