"""The server for functions in JavaScript: what ``qinling-conformance`` does not ask of it."""

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fixtures.process import find_executable, wait_until
from tests.fixtures.worker import MB, Worker, pack

SERVER = Path(__file__).parents[3] / "runtimes" / "nodejs" / "server"
EXHAUSTED = "Function execution failed because of too much resource consumption"
BOUNDS = {"memory_size": 64 * MB, "max_log_size": MB, "import_timeout": 10}

#: What a function of these tests does by its input; "ok" shows that the function is served.
SOURCE = r"""
const fs = require('fs')
const { spawn, spawnSync } = require('child_process')
const { Worker } = require('worker_threads')
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const kept = []

const what = {
  ok: async ({ seconds = 0 }) => { await sleep(seconds * 1000); return process.pid },
  echo: ({ value }) => value,
  spin: () => { for (;;); },
  never: () => new Promise(() => setInterval(() => {}, 1000)),
  stop: () => process.kill(process.pid, 'SIGSTOP'),
  objects: () => { for (;;) kept.push(new Array(1000).fill(0).map(String)) },
  buffers: () => { for (;;) kept.push(Buffer.alloc(1 << 20, 1)) },
  memory_in_a_file: () => {
    const path = `/dev/shm/qinling-test-${process.pid}`
    const file = fs.openSync(path, 'w')
    fs.unlinkSync(path)
    for (let n = 0; n < 256; n++) fs.writeSync(file, Buffer.alloc(1 << 20, 1))
    for (;;);
  },
  one_large: () => Buffer.alloc(1 << 30, 1).length,
  files: () => { for (;;) kept.push(fs.openSync('/dev/null')) },
  exit: () => process.exit(0),
  abort: () => process.abort(),
  kill_parent: async () => { process.kill(process.ppid, 'SIGKILL'); await sleep(5000) },
  close_all: () => {
    for (let n = 0; n < 64; n++) {
      try { fs.closeSync(n) } catch {}
    }
    return 'closed'
  },
  write_everywhere: ({ text }) => {
    for (const name of fs.readdirSync('/proc/self/fd')) {
      try { fs.writeSync(Number(name), text) } catch {}
    }
    return 'written'
  },
  daemonise: () => spawnSync('sh', ['-c', 'setsid sleep 600 & exit 0'], { stdio: 'ignore' }).status,
  child: () => spawn('sleep', ['600'], { stdio: 'ignore' }).pid > 0,
  timer: () => { setInterval(() => console.log('late'), 10); return 'left' },
  thread: () => { new Worker('for (;;);', { eval: true }); return 'left' },
  later: () => { setTimeout(() => { throw new Error('too late') }, 1); return 'left' },
  beside: () => { setTimeout(() => { throw new Error('beside') }, 1); return sleep(5000) },
  unhandled: () => { Promise.reject(new Error('unhandled')); return sleep(5000) },
  bomb: () => { for (;;) { try { spawn('sleep', ['600'], { stdio: 'ignore' }) } catch {} } },
  nothing: () => undefined,
  fails: () => { throw new TypeError('as asked') },
  throws_text: () => { throw 'words' },
  big: () => 10n,
  circle: () => { const a = []; a.push(a); return a },
  no_json: () => () => 1,
  huge: () => 'x'.repeat(3000000),
  deep: ({ levels }) => { let a = []; for (let n = 1; n < levels; n++) a = [a]; return a },
  print: () => {
    process.stdout.write('one ')
    console.log('two')
    console.error('three')
    spawnSync('sh', ['-c', 'echo four; echo five >&2'], { stdio: 'inherit' })
    process.stdout.write('six')
  },
  no_text: () => { for (let n = 0; n < 16; n++) fs.writeSync(1, Buffer.alloc(65535, 0xff)) },
  loud: () => {
    for (let n = 0; n < 10240; n++) console.log('x'.repeat(1023))
    throw new Error('end')
  },
  secrets: ({ pid }) => ['environ', 'mem', 'maps', 'fd'].filter((name) => {
    try {
      const path = `/proc/${pid}/${name}`
      if (name === 'fd') fs.readdirSync(path)
      else fs.readSync(fs.openSync(path), Buffer.alloc(1))
      return false
    } catch (error) { return error.code === 'EACCES' }
  })
}

exports.main = (input, context) => what[input.do](input, context)
"""

Make = Callable[..., Worker]


@pytest.fixture
def start(make: Make) -> Make:
    """Starts such a worker with a function, the one above unless another is given."""

    def start(source: str = SOURCE, name: str = "main.js", **more: object) -> Worker:
        program = [find_executable("node"), str(SERVER / "main.js")]
        worker = make(program=program, PATH=os.defpath)
        worker.specialize({name: source}, **BOUNDS | more)
        return worker

    return start


def do(worker: Worker, what: str, timeout: float = 20, **more: object) -> dict:  # type: ignore[type-arg]
    return worker.run(json.dumps({"do": what, **more}), timeout)


def settle(worker: Worker) -> None:
    """Wait until there is nothing but the server and its slots."""
    wait_until(lambda: len(worker.processes()) == 4, 20, "three slots and nobody else")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("spin", "Function execution timeout"),
        ("never", "Function execution timeout"),
        ("stop", "Function execution timeout"),
        ("objects", EXHAUSTED),
        ("buffers", EXHAUSTED),
        ("memory_in_a_file", EXHAUSTED),
        ("one_large", EXHAUSTED),
        ("files", "Too many open files"),
        ("exit", EXHAUSTED),
        ("abort", EXHAUSTED),
        ("close_all", ""),
        ("beside", "beside"),
        ("unhandled", "unhandled"),
    ],
)
def test_what_misbehaves_is_told_and_hurts_itself_alone(start: Make, what: str, words: str) -> None:
    worker = start()
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(do, worker, "ok", seconds=1) for _ in range(2)]
        answer = do(worker, what, timeout=1 if "timeout" in words else 20)
        assert answer["status"] == "failed"
        assert words in answer["output"]
        assert answer["duration"] >= ("timeout" in words)
        assert [other.result()["status"] for other in others] == ["success"] * 2
    settle(worker)
    for _ in range(4):
        assert do(worker, "ok")["status"] == "success"


def test_what_an_execution_leaves_running_is_ended_with_it(start: Make) -> None:
    worker = start()
    for what in ("daemonise", "child", "timer", "thread", "later"):
        assert do(worker, what)["status"] == "success", what
        settle(worker)
        for _ in range(4):
            answer = do(worker, "ok")
            assert (answer["status"], answer["log"]) == ("success", ""), what


@pytest.mark.parametrize(
    "text",
    ["\0\0\0\0", "\0\0\0\x03abc", "\x7f\x7f\x7f\x7f", "\0\0\x07\xbc" + "[" * 990 + "]" * 990],
)
def test_what_is_written_to_inherited_pipes_reaches_no_other_execution(
    start: Make, text: str
) -> None:
    worker = start()
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(do, worker, "ok", seconds=0.3) for _ in range(2)]
        assert do(worker, "write_everywhere", text=text)["status"] in ("failed", "success")
        assert [other.result()["status"] for other in others] == ["success"] * 2
    for _ in range(4):
        assert isinstance(do(worker, "ok")["output"], int)


@pytest.mark.parametrize(
    ("what", "more", "output"),
    [
        ("nothing", {}, None),
        ("echo", {"value": {"a": ["é", None, 1.5]}}, {"a": ["é", None, 1.5]}),
        ("fails", {}, "as asked"),
        ("throws_text", {}, "words"),
        ("big", {}, "The function's result is no JSON: Do not know how to serialize a BigInt"),
        ("circle", {}, "The function's result is no JSON: "),
        ("no_json", {}, "The function's result is no JSON"),
        ("huge", {}, "The function's result is larger than 2097152 bytes"),
        ("deep", {"levels": 64}, None),
        ("deep", {"levels": 65}, "The function's result is nested deeper than 64 levels"),
        ("deep", {"levels": 100000}, "The function's result is nested deeper than 64 levels"),
    ],
)
def test_what_comes_of_a_result(
    nodejs: Worker, what: str, more: dict[str, object], output: object
) -> None:
    answer = do(nodejs, what, **more)
    if isinstance(output, str):
        assert answer["status"] == "failed"
        assert answer["output"].startswith(output)
    else:
        assert answer["status"] == "success"
        assert what == "deep" or answer["output"] == output


@pytest.fixture(scope="module")
def nodejs() -> object:
    """One worker for functions that do it no harm."""
    program = [find_executable("node"), str(SERVER / "main.js")]
    with Worker(program=program, PATH=os.defpath) as worker:
        worker.specialize({"main.js": SOURCE}, **BOUNDS)
        yield worker


def test_what_is_printed_is_the_log_in_order_and_cut_with_a_note(nodejs: Worker) -> None:
    assert do(nodejs, "print")["log"] == "one two\nthree\nfour\nfive\nsix"
    answer = do(nodejs, "loud")
    assert answer["output"] == "end"
    assert len(answer["log"].encode()) <= MB
    assert "\n[The log was cut here: " in answer["log"]
    assert "Error: end\n" in answer["log"][-2000:]


def test_a_log_that_is_no_text_is_cut_by_what_it_takes_as_text(nodejs: Worker) -> None:
    log = nodejs.run('{"do": "no_text"}')["log"]
    assert MB - 200 < len(log.encode()) <= MB
    assert log.endswith(" bytes more were printed.]\n")


def test_large_input_and_output_pass(nodejs: Worker) -> None:
    text = "é" * (MB // 2)
    assert do(nodejs, "echo", value=text)["output"] == text


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        (None, []),
        ('{"a": 1}', [{"a": 1}]),
        ("words", ["words"]),
        ('["a"]', ['["a"]']),
        ("{not json", ["{not json"]),
    ],
)
def test_an_input_is_one_argument_and_the_context_is_the_second(
    start: Make, given: str | None, argument: list[object]
) -> None:
    source = "export const main = async (...all) => all"
    worker = start(source, "main.mjs", concurrency=1)
    found = worker.run(given)["output"]
    assert found == [*(argument or [None]), {"os_session": None}]
    deep = '{"a":' * 65 + "1" + "}" * 65
    assert worker.run(deep)["output"] == "input is nested deeper than 64 levels"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("throw new Error('at once')", "at once"),
        ("exports.main = (", "Unexpected end of input"),
        ("require('nowhere')", "Cannot find module 'nowhere'"),
        ("exports.other = 1", "has no function main"),
        ("process.exit(3)", "The import failed"),
        ("for (;;);", "longer than 1 s"),
        ("const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1))", "import"),
    ],
)
def test_an_import_that_fails_is_told_in_every_execution(
    start: Make, source: str, error: str
) -> None:
    worker = start(source, import_timeout=1)
    for _ in range(2):
        told = worker.run()
        assert told["status"] == "failed"
        assert error in told["output"]
        assert told["log"]
    wait_until(lambda: len(worker.processes()) == 1, 20, "nobody but the server")


def test_a_worker_whose_function_cannot_be_imported_again_is_given_up(start: Make) -> None:
    worker = start(
        "exports.main = () => {\n"
        "  require('fs').rmSync(process.cwd(), { recursive: true })\n"
        "  process.exit(1)\n}"
    )
    settle(worker)
    assert worker.run()["status"] == "failed"
    assert worker.process.wait(20) == 1


def test_a_function_that_can_be_there_only_once_is_served_by_one_slot(
    start: Make, tmp_path: Path
) -> None:
    worker = start(
        f"require('fs').mkdirSync({json.dumps(str(tmp_path / 'once'))})\n"
        "exports.main = () => new Promise((resolve) => setTimeout(resolve, 100, process.pid))"
    )
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: worker.run(), range(6)))
        assert {answer["status"] for answer in answers} == {"success"}, answers
        assert len({answer["output"] for answer in answers}) == 1
    # The others could not be had, and nobody is left of them.
    wait_until(lambda: len(worker.processes()) == 2, 20, "one slot")
    assert worker.process.poll() is None


def test_packages_beside_the_module_are_found(start: Make, make: Make) -> None:
    program = [find_executable("node"), str(SERVER / "main.js")]
    worker = make(program=program, PATH=os.defpath)
    files = {
        "app/main.js": "exports.run = () => require('vendored')() + require('./other')",
        "app/other.js": "module.exports = require('fs').readFileSync('data.txt', 'utf8')",
        "node_modules/vendored/index.js": "module.exports = () => 'from a package, '",
        "data.txt": "from a file",
    }
    status, answer = worker.give(worker.order("app.main.run", **BOUNDS), pack(files))
    assert (status, answer["error"]) == (200, None)
    assert worker.run()["output"] == "from a package, from a file"


@pytest.mark.parametrize("entry", ["my-mod.main", "1.main", "été.1x"])
def test_every_entry_that_the_api_takes_is_taken_and_a_zip_with_something_before_it(
    make: Make, entry: str
) -> None:
    program = [find_executable("node"), str(SERVER / "main.js")]
    worker = make(program=program, PATH=os.defpath)
    module, name = entry.split(".")
    files = {f"{module}.js": f"exports[{name!r}] = () => 'here'", "other.txt": "x" * 1000}
    content = b"#!/bin/sh\nexit 1\n" + pack(files)
    status, answer = worker.give(worker.order(entry, **BOUNDS), content)
    assert (status, answer.get("error")) == (200, None)
    assert worker.run()["output"] == "here"


def test_a_package_with_a_name_twice_is_refused(make: Make) -> None:
    program = [find_executable("node"), str(SERVER / "main.js")]
    worker = make(program=program, PATH=os.defpath)
    files = {"main.js": "exports.main = () => 1", "./main.js": "exports.main = () => 2"}
    status, answer = worker.give(worker.order("main.main", **BOUNDS), pack(files))
    assert (status, "two entries of one name" in answer["error"]) == (400, True)


def test_a_server_that_is_killed_leaves_no_slot(start: Make) -> None:
    worker = start()
    settle(worker)
    answer: dict[str, object] = {}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: answer.update(do(worker, "kill_parent")))
        with contextlib.suppress(Exception):
            asked.result()
    assert answer == {}
    assert worker.process.wait(20) == -9
    wait_until(lambda: not worker.processes(), 20, "nobody is left")


def test_drained_it_removes_the_function(make: Make, tmp_path: Path) -> None:
    program = [find_executable("node"), str(SERVER / "main.js")]
    worker = make(program=program, PATH=os.defpath, TMPDIR=str(tmp_path))
    worker.specialize({"main.js": SOURCE}, **BOUNDS)
    assert len(list(tmp_path.iterdir())) == 1
    assert worker.ask("POST", "/drain")[0] == 202
    assert worker.process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []
    assert worker.processes() == []


def test_as_the_dockerfile_runs_it_no_function_can_read_the_server(
    make: Make, tmp_path: Path
) -> None:
    """A Node.js that may be run and not read, and a user who is not root, as there."""
    dockerfile = (SERVER.parent / "Dockerfile").read_text()
    assert "install --mode=0711" in dockerfile
    for place in (tmp_path, *list(tmp_path.parents)[:2]):
        place.chmod(0o755)
    shutil.copytree(SERVER, tmp_path / "server")
    node = find_executable("node")
    unreadable = tmp_path / "qinling-node"
    shutil.copy(node, unreadable)
    is_root = os.geteuid() == 0
    # Who owns it may read it whatever its mode is, but root may give it to nobody else.
    unreadable.chmod(stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    worker = make(
        uid=61011 if is_root else None,
        program=[str(unreadable), str(tmp_path / "server" / "main.js")],
        PATH=os.defpath,
        QINLING_NODE=node,
        QINLING_WORKER_MAX_PROCESSES="150",
    )
    worker.specialize({"main.js": SOURCE}, **BOUNDS)
    answer = do(worker, "secrets", pid=worker.process.pid)
    assert answer["output"] == ["environ", "mem", "maps", "fd"]


@pytest.mark.skipif(
    os.geteuid() != 0,
    reason="only root gives each worker a user of its own; without, the kernel counts the "
    "processes of this user, and the bomb would be ours",
)
def test_a_fork_bomb_is_ended(make: Make, tmp_path: Path) -> None:
    for place in (tmp_path, *list(tmp_path.parents)[:2]):
        place.chmod(0o755)
    shutil.copytree(SERVER, tmp_path / "server")
    worker = make(
        uid=61012,
        program=[find_executable("node"), str(tmp_path / "server" / "main.js")],
        PATH=os.defpath,
        QINLING_WORKER_MAX_PROCESSES="150",
    )
    worker.specialize({"main.js": SOURCE}, **BOUNDS)
    began = time.monotonic()
    answer = do(worker, "bomb", timeout=5)
    assert answer["status"] == "failed"
    assert EXHAUSTED in answer["output"] or "timeout" in answer["output"]
    assert time.monotonic() - began < 20
    settle(worker)
    assert do(worker, "ok")["status"] == "success"
