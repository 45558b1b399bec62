"""The files in etc/: made from the code as it is, on whatever machine."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qinling import conf, policies
from tests.fixtures.process import find_executable

ROOT = Path(__file__).parents[2]
ETC = ROOT / "etc" / "qinling"
UNITS = ROOT / "etc" / "systemd"
BIN = Path(sys.executable).parent

#: Runs a generator on what looks like another machine.
ELSEWHERE = """
import os, pathlib, platform, socket, sys
socket.gethostname = socket.getfqdn = platform.node = lambda *_: "another-host"
os.cpu_count = lambda: 77
os.path.expanduser = lambda path: path.replace("~", "/nonexistent/home")
generator, *sys.argv[1:] = sys.argv[1:]
if generator == "config":
    from oslo_config.generator import main
else:
    from oslo_policy.generator import generate_sample as main
main()
"""


@pytest.mark.parametrize(
    ("generator", "settings", "sample", "tox"),
    [
        ("config", "qinling-config-generator.conf", "qinling.conf.sample", "genconfig"),
        ("policy", "qinling-policy-generator.conf", "policy.yaml.sample", "genpolicy"),
    ],
)
def test_a_sample_is_what_its_generator_makes_anywhere(
    tmp_path: Path, generator: str, settings: str, sample: str, tox: str
) -> None:
    made = tmp_path / sample
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", ELSEWHERE, generator),
            *("--config-file", ETC / settings, "--output-file", made),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert made.read_text() == (ETC / sample).read_text(), f"tox -e {tox} writes it anew"


def test_the_sample_has_every_option_of_ours_and_of_what_is_used() -> None:
    text = (ETC / "qinling.conf.sample").read_text()
    sections = re.split(r"^\[(.+)\]$", text, flags=re.MULTILINE)
    options = dict(zip(sections[1::2], sections[2::2], strict=True))
    for module in conf.MODULES:
        for option in module.OPTS:
            assert f"\n#{option.dest} =" in options[module.GROUP]
    assert "\n#transport_url = " in options["DEFAULT"]
    assert "\n#log_file = " in options["DEFAULT"]
    assert "\n#connection = " in options["database"]
    assert "\n#www_authenticate_uri = " in options["keystone_authtoken"]
    assert "\n#policy_file = " in options["oslo_policy"]
    assert "\n#enable_proxy_headers_parsing = " in options["oslo_middleware"]
    assert "\n#allowed_origin = " in options["cors"]
    assert "\n#detailed = " in options["healthcheck"]


def test_the_sample_shows_what_this_service_sets_otherwise_than_the_libraries_do() -> None:
    lines = (ETC / "qinling.conf.sample").read_text().splitlines()
    for line in (
        "#use_stderr = true",
        "#http_connect_timeout = 5",
        "#http_request_max_retries = 1",
        "#service_type = function-engine",
        "#enforce_new_defaults = true",
        "#allow_headers = X-Auth-Token,X-OpenStack-Request-ID,Idempotency-Key",
        "#expose_headers = X-OpenStack-Request-ID,Retry-After",
        "#allow_methods = GET,HEAD,POST,PUT,DELETE",
    ):
        assert line in lines


def test_the_samples_change_nothing_when_they_are_taken_as_they_are() -> None:
    for sample in ("qinling.conf.sample", "policy.yaml.sample"):
        for line in (ETC / sample).read_text().splitlines():
            assert line == "" or line.startswith(("#", "[")), line


def test_the_policy_sample_has_every_policy_with_its_call() -> None:
    commented = (ETC / "policy.yaml.sample").read_text()
    rules = yaml.safe_load(re.sub(r'^#"', '"', commented, flags=re.MULTILINE))
    assert rules == {rule.name: rule.check_str for rule in policies.list_rules()}
    assert "# POST  /v1/runtimes\n" in commented


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of oslo.policy as an operator does."""
    return subprocess.run(
        [BIN / f"oslopolicy-{name}", "--namespace", "qinling", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def policy_file(folder: Path, content: str) -> Path:
    """A configuration whose policy file has this content."""
    (folder / "policy.yaml").write_text(content)
    file = folder / "qinling.conf"
    file.write_text(f"[oslo_policy]\npolicy_file = {folder / 'policy.yaml'}\n")
    return file


def test_oslopolicys_validator_knows_the_policies(tmp_path: Path) -> None:
    good = policy_file(tmp_path, '"runtime:show_pool": "rule:project_member"\n')
    done = tool("validator", "--config-file", good)
    assert done.returncode == 0, done.stdout + done.stderr
    bad = policy_file(tmp_path, '"runtime:fly": "role:admin"\n"runtime:list": "rule:nobody"\n')
    done = tool("validator", "--config-file", bad)
    assert done.returncode == 1
    assert "runtime:fly" in done.stdout
    assert "runtime:list" in done.stdout + done.stderr


def test_oslopolicys_tool_finds_what_is_redundant_in_a_policy_file(tmp_path: Path) -> None:
    file = policy_file(
        tmp_path, '"runtime:create": "rule:admin"\n"runtime:show_pool": "rule:project_member"\n'
    )
    done = tool("list-redundant", "--config-file", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '"runtime:create": "rule:admin"\n'


def test_oslopolicys_generator_merges_a_policy_file_into_the_defaults(tmp_path: Path) -> None:
    file = policy_file(tmp_path, '"runtime:show_pool": "rule:project_member"\n')
    done = tool("policy-generator", "--config-file", file)
    assert done.returncode == 0, done.stderr
    effective = yaml.safe_load(done.stdout)
    assert effective["runtime:show_pool"] == "rule:project_member"
    assert effective["runtime:create"] == "rule:admin"


def test_oslopolicys_sample_generator_knows_the_namespace() -> None:
    done = tool("sample-generator")
    assert done.returncode == 0, done.stderr
    assert '#"runtime:create": "rule:admin"' in done.stdout


def unit(name: str) -> configparser.SectionProxy:
    """The section [Service] of a unit."""
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    assert set(parser.sections()) == {"Unit", "Service", "Install"}
    return parser["Service"]


@pytest.mark.parametrize("name", ["qinling-api", "qinling-engine"])
def test_a_unit_runs_a_program_that_there_is_and_waits_until_it_is_ready(name: str) -> None:
    service = unit(f"{name}.service")
    assert service["Type"] == "notify"
    program = Path(service["ExecStart"])
    assert program.name == name
    assert (BIN / name).exists()
    assert service["NoNewPrivileges"] == "true"


def test_the_engines_unit_lets_its_workers_be() -> None:
    service = unit("qinling-engine.service")
    # Its restart, and the death of one of them, ends no other worker.
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    # Their user ids and their /tmp are what they are on the host, restart or not.
    for breaking in ("DynamicUser", "PrivateUsers", "PrivateTmp", "RemoveIPC"):
        assert service.get(breaking, "no") in ("no", "false")
    needed = {"CAP_SETUID", "CAP_SETGID", "CAP_KILL"}
    assert needed <= set(service["CapabilityBoundingSet"].split())
    assert service["ProtectSystem"] in ("full", "true")


@pytest.mark.parametrize("name", ["qinling-api", "qinling-engine"])
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path: Path, name: str) -> None:
    """The package systemd has what looks at them; systemd need not run."""
    analyze = find_executable("systemd-analyze")
    text = (UNITS / f"{name}.service").read_text()
    file = tmp_path / f"{name}.service"
    # The program is where this Python's programs are.
    file.write_text(re.sub(r"^ExecStart=.*/", f"ExecStart={BIN}/", text, flags=re.MULTILINE))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_engine_keeps_its_workers_with_no_more_capabilities_than_its_unit_leaves_it(
    tmp_path: Path,
) -> None:
    """One worker, started and told to end: with what the unit's bounding set has."""
    service = unit("qinling-engine.service")
    wanted = [
        name.removeprefix("CAP_").lower() for name in service["CapabilityBoundingSet"].split()
    ]
    bounds = ",".join(["-all", *(f"+{name}" for name in wanted)])
    limited = [find_executable("setpriv"), "--bounding-set", bounds, "--no-new-privs", "--"]
    # Only root can take capabilities from itself, and only root has any.
    prefix = limited if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, sys.executable, "-c", KEEP, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    own = done.stdout.split()[0]
    assert own == ("True" if os.geteuid() == 0 else "False")


#: Starts a program as a worker is started, with a user id of its own where that can be given, and
#: ends it.
KEEP = """
import os, pathlib, select, signal, sys, time, uuid
from qinling.orchestrator.local import group, process
users = process.Users(1879048192, (), 150) if os.geteuid() == 0 else None
log = pathlib.Path(sys.argv[1]) / "log"
command = ("/bin/sh", "-c", "mkdir $TMPDIR/a; chmod 0 $TMPDIR/a; setsid sleep 600 & exec sleep 600")
started = process.start(str(uuid.uuid4()), "x", command, log, users)
while not (left := group.strays(started.entry)):
    time.sleep(0.01)
uid = os.stat(f"/proc/{started.entry.pid}").st_uid
pidfd = process.open_pidfd(started.entry)
process.send(pidfd, signal.SIGTERM)
assert select.select([pidfd], [], [], 20)[0], "it did not end"
assert started.popen.wait() == -signal.SIGTERM
group.kill(started.entry)
assert select.select(left, [], [], 20)[0], "who has left it did not end"
process.remove_files(started.entry)
assert not os.path.exists(started.entry.folder)
print(uid != os.geteuid())
"""
