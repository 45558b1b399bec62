"""Configuration: a mistake in it is told in one line before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg

from qinling import conf as configuration
from qinling import exceptions
from qinling.conf import opts


def load(file: Path, *argv: str) -> cfg.ConfigOpts:
    return configuration.load([*argv, "--config-file", str(file)], "qinling-test")


#: What a file says → what is told of it.
MISTAKES = {
    "no number": ("[api]\nport = many", "port"),
    "no port": ("[api]\nport = 70700", "65535"),
    "no boolean": ("[pecan]\nauth_enable = perhaps", "perhaps"),
    "too small": ("[engine]\npool_size = 0", "pool_size"),
    "too large": ("[api]\nthreads = 5000", "4096"),
    "too small a fraction": ("[engine]\nunsettled_interval = 0.01", "0.1"),
    "below the users of the host": ("[local]\nuid_base = 0", "uid_base"),
    "no address": ("[api]\nhost = not a host", "not a host"),
    "all that there is": ("[kubernetes]\nblocked_cidrs = 0.0.0.0/0", "write 0.0.0.0/1,128.0.0.0/1"),
    "all of the new": ("[kubernetes]\nblocked_cidrs = 10.0.0.0/8, ::/0", "write ::/1,8000::/1"),
    "no section": ("port = 1\n[api", "Section must be started"),
    "no assignment": ("[api]\nport", "port"),
    "the database's": ("[database]\nmax_pool_size = abc", "max_pool_size"),
    "the database's truth": ("[database]\nsqlite_synchronous = maybe", "sqlite_synchronous"),
    "the proxy's": (
        "[oslo_middleware]\nenable_proxy_headers_parsing = maybe",
        "enable_proxy_headers_parsing",
    ),
    "the healthcheck's": ("[healthcheck]\ndetailed = perhaps", "detailed"),
    "CORS's": ("[cors]\nmax_age = long", "max_age"),
    "the policies'": ("[oslo_policy]\nenforce_new_defaults = perhaps", "enforce_new_defaults"),
    "the log's": ("[DEFAULT]\nlog_rotate_interval = often", "log_rotate_interval"),
    "a dollar": ("[database]\nconnection = mysql://q:se$cret@db/q", "write $$"),
    "a logging file that is not there": ("[DEFAULT]\nlog_config_append = /nonexistent", "log"),
}


@pytest.mark.parametrize(("content", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_file_is_told_in_one_line_with_the_program(
    tmp_path: Path, content: str, told: str
) -> None:
    file = tmp_path / "qinling.conf"
    file.write_text(f"{content}\n")
    with pytest.raises(exceptions.StartupError) as caught:
        load(file)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("qinling-test: ")
    assert told in line
    for strange in ("LocationInfo", "cret"):
        assert strange not in line


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(exceptions.StartupError, match=r"missing\.conf"):
        load(tmp_path / "missing.conf")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(exceptions.StartupError, match=str(tmp_path)):
        load(tmp_path)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    file = tmp_path / "qinling.conf"
    file.write_bytes(b"[api]\nhost = \xff\xfe\n")
    with pytest.raises(exceptions.StartupError) as caught:
        load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "argv", [["--nonsense"], ["nonsense"], ["--debug=5"], ["--config-file"]], ids=" ".join
)
def test_a_mistake_on_the_command_line_is_told_in_one_line(argv: list[str]) -> None:
    with pytest.raises(exceptions.StartupError) as caught:
        configuration.load(argv, "qinling-test", files=())
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("qinling-test: ")


#: A process of its own: the log that is set up here is not pytest's.
LOOK = """
import sys
from oslo_config import cfg
from qinling import conf
options = conf.load(sys.argv[1:], "qinling-test", extra=[cfg.IntOpt("more")], files=())
print(options.api.port, options.engine.pool_size, options.more, options.cors.max_age)
print(options.engine.unsettled_interval, options.local.images, options.use_stderr)
"""


def look(*argv: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *argv], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def test_what_is_set_nowhere_has_its_default() -> None:
    assert look() == ["7070 3 None 3600", "5.0 [] True"]


def test_files_and_the_command_line_are_read_in_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1.conf", tmp_path / "2.conf"
    first.write_text(
        "[api]\nport = 1\n[engine]\npool_size = 4\n[local]\nimages = a=b\nimages = c=d\n"
    )
    second.write_text("[api]\nport = 2\n")
    argv = ["--config-file", str(first), "--config-file", str(second), "--more", "5"]
    assert look(*argv) == ["2 4 5 3600", "5.0 ['a=b', 'c=d'] True"]


def test_two_configurations_know_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = cfg.ConfigOpts(), cfg.ConfigOpts()
    for conf in (one, other):
        configuration.register(conf)
        conf([], project="qinling", default_config_files=[])
    one.set_override("port", 1, group="api")
    assert other.api.port == 7070


OPTIONS = [(group, option) for group, options in opts.list_opts() for option in options]


@pytest.mark.parametrize(
    ("group", "option"), OPTIONS, ids=[f"{group}.{option.name}" for group, option in OPTIONS]
)
def test_an_option_says_what_it_is_for_in_which_unit_and_range(group: str, option: cfg.Opt) -> None:
    assert option.help
    assert option.help.endswith(".")
    if isinstance(option, cfg.IntOpt | cfg.FloatOpt) and not isinstance(option, cfg.PortOpt):
        assert option.type.min is not None
        assert option.type.max is not None
        units = (
            "seconds",
            "workers",
            "threads",
            "rows",
            "user",
            "millicpu",
            "mib",
            "bytes",
            "executions",
        )
        assert any(unit in option.help.lower() for unit in units)


@pytest.mark.parametrize("name", ["my_host", "vm-1", "host.example.org", "4711", "a" * 64])
def test_any_name_that_a_host_may_have_is_a_name_of_an_engine(name: str) -> None:
    code = (
        "import socket, sys; socket.gethostname = lambda: sys.argv[1]\n"
        "from qinling import conf\n"
        "print(conf.load([], 'qinling-test', files=()).engine.host)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == f"{name}\n", done.stderr


@pytest.mark.parametrize("name", ["", "two words", "x" * 300])
def test_what_is_no_name_of_a_host_is_none_of_an_engine(tmp_path: Path, name: str) -> None:
    file = tmp_path / "qinling.conf"
    file.write_text(f"[engine]\nhost = {name}\n")
    with pytest.raises(exceptions.StartupError, match="host"):
        load(file)
