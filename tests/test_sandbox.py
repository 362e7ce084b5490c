"""Code that tries to get out of the sandbox, and what comes of it: one line, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from multiprocessing import shared_memory

import numpy as np
import psutil
import pytest

from lucibot.core.errors import UserError
from lucibot.sandbox import CodeFailed, Limits, ensure_walls, sandbox, scored, walls

WALLS = walls()
shut_in = pytest.mark.skipif(
    not WALLS, reason="this machine has no seccomp (pyseccomp, libseccomp)"
)

ESCAPES = {
    # Files.
    "read": "return float(open('{secret}').read())",
    "read by os": "import os\nfd = os.open('{secret}', 0)\nreturn float(os.read(fd, 9))",
    "read by io": "import io\nreturn float(io.FileIO('{secret}').read())",
    "read by numpy": "return np.fromfile('{secret}', sep=' ')[0]",
    "map by numpy": "return np.memmap('{secret}', mode='r')[0]",
    "read own memory": "return len(open('/proc/self/mem', 'rb').read(1))",
    "read the parent's environment": "import os\n"
    "return len(open('/proc/%d/environ' % os.getppid(), 'rb').read())",
    "list": "import os\nreturn len(os.listdir('/'))",
    "stat": "import os\nreturn os.stat('{secret}').st_size",
    "write": "open('{new}', 'w').write('x')\nreturn 1",
    "write by os": "import os\nreturn os.open('{new}', os.O_CREAT | os.O_WRONLY)",
    "save by numpy": "np.save('{new}', np.zeros(3))\nreturn 1",
    "unlink": "import os\nos.unlink('{secret}')\nreturn 1",
    "rename": "import os\nos.rename('{secret}', '{new}')\nreturn 1",
    "truncate": "import os\nos.truncate('{secret}', 0)\nreturn 1",
    "chmod": "import os\nos.chmod('{secret}', 0o777)\nreturn 1",
    "link": "import os\nos.symlink('{secret}', '{new}')\nreturn 1",
    "folder": "import os\nos.mkdir('{new}')\nreturn 1",
    "chroot": "import os\nos.chroot('/')\nreturn 1",
    # The network.
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', {port}))\nreturn 1",
    "connect by _socket": "import _socket\ns = _socket.socket()\n"
    "s.connect(('127.0.0.1', {port}))\nreturn 1",
    "connect by ctypes": "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
    "fd = c.socket(2, 1, 0)\nif fd < 0: raise OSError(ctypes.get_errno())\nreturn fd",
    "fetch": "import urllib.request\n"
    "return len(urllib.request.urlopen('http://127.0.0.1:{port}').read())",
    # Other processes.
    "fork": "import os\nreturn os.fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "shell": "import os\nif os.system('touch {new}'): raise OSError('no shell')\nreturn 1",
    "subprocess": "import subprocess\nreturn subprocess.run(['touch', '{new}']).returncode",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'touch {new}'])",
    "spawn": "import os\nreturn os.posix_spawn('/bin/sh', ['sh', '-c', 'touch {new}'], {{}})",
    "pseudo terminal": "import os\nreturn os.forkpty()[0]",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start()\nreturn 1",
    "threads": "import threading\nthreading.Thread(target=print).start()\nreturn 1",
    # Signals.
    "kill": "import os\nos.kill({pid}, 9)\nreturn 1",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)\nreturn 1",
    "kill the group": "import os\nos.killpg(0, 9)\nreturn 1",
    "abort": "import os\nos.abort()",
    "hold the signal of a limit": "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
    "while True: pass",
    # Memory.
    "a long list": "x = []\nwhile True: x.append(bytes(10**7))",
    "a large array": "return np.ones(10**11)[0]",
    "a large number": "return len(str(9 ** (9 ** 9)))",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\n"
    "def f(x): return f([x])[0]\nreturn f(1)",
    # Below Python.
    "crash": "import ctypes\nreturn ctypes.string_at(0)[0]",
    "code in memory": "import mmap\n"
    "return len(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))",
    "ptrace": "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
    "if c.ptrace(16, {pid}, 0, 0) < 0: raise OSError(ctypes.get_errno())\nreturn 1",
    "a raw system call": "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
    "if c.syscall(57) < 0: raise OSError(ctypes.get_errno())\nreturn 1",
    "mount": "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
    "if c.mount(b'none', b'/tmp', b'tmpfs', 0, None): raise OSError(ctypes.get_errno())\nreturn 1",
    "undo": "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
    "if c.prctl(22, 0, 0, 0, 0): raise OSError(ctypes.get_errno())\nreturn 1",
    "raise the limits": "import resource\n"
    "resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))\nreturn 1",
    # Around Python.
    "subclasses": "c = [c for c in ().__class__.__base__.__subclasses__() "
    "if c.__name__ == '_wrap_close'][0]\nif c.__init__.__globals__['system']('touch {new}'): "
    "raise OSError('no shell')\nreturn 1",
    "frames": "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\n"
    "return f.f_builtins['open']('{secret}').read()",
    "the import machinery": "import importlib.util as u\n"
    "s = u.spec_from_file_location('x', '{secret}')\ns.loader.exec_module(u.module_from_spec(s))\n"
    "return 1",
    "pickle": "import pickle\nif pickle.loads(b'cposix\\nsystem\\n(S\"touch {new}\"\\ntR.'): "
    "raise OSError('no shell')\nreturn 1",
    "the environment": "import os\nreturn float(os.environ['LUCIBOT_SECRET'])",
    # For ever.
    "endless": "while True: pass",
    "endless in C": "import itertools\nreturn sum(itertools.count())",
    "sleep": "import time\ntime.sleep(10**6)\nreturn 1",
    "wait for input": "import os\nreturn len(os.read(0, 1))",
    # Shared memory.
    "shared memory": "from multiprocessing import shared_memory\n"
    "shared_memory.SharedMemory('{shared}').buf[0] = 9\nreturn 1",
    "shared memory by its file": "import mmap, os\n"
    "m = mmap.mmap(os.open('/dev/shm/{shared}', 2), 1)\nm[0] = 9\nreturn 1",
    "shared memory of System V": "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
    "if c.shmget(7, 4096, 0o1666) < 0: raise OSError(ctypes.get_errno())\nreturn 1",
    # The answer.
    "a flood": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "another answer": "import os\nos.write(1, b'V123')\nos._exit(0)",
    "no answer": "import os\nos._exit(0)",
    "an error with line breaks": "raise ValueError('a\\nb\\x1b[31mc')",
}
"""What it tries -> the body of `reward(scene)`."""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """What code could reach, and after it what was not to happen."""
    secret = tmp_path / "secret"
    secret.write_text("4711")
    monkeypatch.setenv("LUCIBOT_SECRET", "4711")
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    shared = shared_memory.SharedMemory(create=True, size=1)
    shared.buf[0] = 1
    mode = secret.stat().st_mode
    yield {
        "secret": secret, "new": tmp_path / "new", "port": server.getsockname()[1],
        "pid": victim.pid, "shared": shared.name,
    }  # fmt: skip
    try:
        assert secret.read_text() == "4711" and secret.stat().st_mode == mode
        assert [p.name for p in tmp_path.iterdir()] == ["secret"]
        assert victim.poll() is None
        assert shared.buf[0] == 1
        with pytest.raises(BlockingIOError):
            server.accept()
        assert not _left(), "processes are left"
    finally:
        victim.kill()
        victim.wait()
        server.close()
        shared.close()
        shared.unlink()


def _left() -> list[psutil.Process]:
    """Processes of this one's that score rollouts."""
    return [
        p for p in psutil.Process().children(recursive=True)
        if p.status() != psutil.STATUS_ZOMBIE and any("inside.py" in c for c in p.cmdline())
    ]  # fmt: skip


def body(code: str) -> str:
    return "def reward(scene):\n" + "\n".join(f"    {line}" for line in code.split("\n"))


def tries(code: str, within: tuple[str, ...]) -> str:
    """The one line that it ends in."""
    with pytest.raises(CodeFailed) as e:
        scored(code, 2, {}, {}, within=within, limits=Limits(seconds=1.5, memory_mib=256))
    text = str(e.value)
    assert text.startswith("reward code: ") and text.isprintable()
    assert "4711" not in text
    return text


def test_there_are_fifty():
    assert len(ESCAPES) >= 50


@shut_in
@pytest.mark.parametrize("what", ESCAPES)
def test_code_does_not_get_out(outside, what):
    """With seccomp alone, as it is where bubblewrap is not installed."""
    tries(body(ESCAPES[what].format(**outside)), ("seccomp",))


@pytest.mark.parametrize(
    "what", ["read", "read by io", "list", "stat", "read the parent's environment"]
)
def test_without_walls_the_same_code_does(outside, what):
    """So that what holds it back are the walls."""
    code = body(ESCAPES[what].format(**outside))
    assert (scored(code, 1, {}, {}, within=()) > 0).all()


@pytest.mark.slow
@pytest.mark.skipif("bubblewrap" not in WALLS, reason="this machine has no bubblewrap that works")
@pytest.mark.parametrize("what", ESCAPES)
def test_code_does_not_get_out_of_two_walls(outside, what):
    tries(body(ESCAPES[what].format(**outside)), WALLS)


@pytest.mark.skipif("bubblewrap" not in WALLS, reason="this machine has no bubblewrap that works")
def test_bubblewrap_alone_shows_no_files_and_no_processes(outside):
    """The second wall stands by itself, so that it is one."""
    for what in ("read", "kill", "connect by _socket", "shared memory by its file"):
        tries(body(ESCAPES[what].format(**outside)), ("bubblewrap",))


FAULTS = {
    "does not parse": ("def reward(scene) return 1", "line 1: SyntaxError"),
    "no function": ("x = 1", "no function reward"),
    "fails as it is read": ("1 / 0", "line 1: ZeroDivisionError"),
    "fails": ("def reward(scene):\n    return {}[1]", "line 2: KeyError"),
    "not a number": (body("return float('nan')"), "gave nan for rollout 0"),
    "infinite": (body("return -np.inf"), "gave -inf"),
    "an array": (body("return np.zeros((2, 3))"), r"shape \(2, 3\)"),
    "words": (body("return 'high'"), "gave str"),
    "nothing": (body("pass"), "gave nothing"),
    "a name that is not there": (body("return scene.position('cup')[0]"), "no position of 'cup'"),
    "takes too long": (body("while True: pass"), "no answer within|more than 1.5 s"),
}


@shut_in
@pytest.mark.parametrize("what", FAULTS)
def test_code_with_a_fault_is_one_line(what):
    code, words = FAULTS[what]
    assert re.search(words, tries(code, WALLS))


@pytest.mark.parametrize("within", [(), *([WALLS] if WALLS else [])])
def test_code_is_given_arrays_and_gives_a_number_for_each_rollout(within):
    code = """
def reward(scene):
    low, high = scene.box("cup")
    inside = ((scene.particles("sand") > low) & (scene.particles("sand") < high)).all(1)
    rise = scene.box("cup")[0, 2] - scene.start_box("cup")[0, 2]
    return inside.mean() + 100 * rise + scene.joint("door") + scene.start_box("table")[1, 2]
"""
    sand = np.zeros((2, 4, 3), np.float32)
    sand[1, 0] = 5
    turned = np.array([[1, 0, 0, 0], [0.5**0.5, 0.5**0.5, 0, 0]])
    arrays = {
        "position/cup": np.array([[0, 0, 0.0], [0, 0, 0.5]]), "quaternion/cup": turned,
        "particles/sand": sand, "joint/door": np.array([0.0, 0.25]),
    }  # fmt: skip
    known = {
        "hull/cup": np.array([[-1, -1, -1], [1, 1, 2.0]]),
        "start/cup": np.array([[-1, -1, -1], [1, 1, 2.0]]), "start/table": np.zeros((2, 3)),
    }  # fmt: skip
    # The second cup lies on its side, so that its lowest point is a metre below its origin.
    found = scored(code, 2, arrays, known, within=within)
    np.testing.assert_allclose(found, [1.0, 0.75 + 100 * 0.5 + 0.25], atol=1e-6)


def test_where_code_cannot_be_shut_in_it_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox, "_runs", lambda within: not within)
    assert walls() == ()
    with pytest.raises(UserError, match="--trust-reward-code") as e:
        ensure_walls()
    assert "\n" not in str(e.value)


def test_a_process_that_ends_before_it_has_read_is_one_line(monkeypatch):
    monkeypatch.setattr(sandbox, "_command", lambda within: ["false"])
    with pytest.raises(CodeFailed, match=r"without an answer \(status 1\)"):
        scored(body("return 1"), 1, {"position/cup": np.zeros((1, 500_000))}, {}, within=())


def test_a_process_that_stays_after_its_answer_is_ended():
    stays = body("import os, time\nos.close(1)\nwhile True: time.sleep(1)")
    with pytest.raises(CodeFailed, match=r"without an answer \(SIGKILL\)|no answer within"):
        scored(stays, 1, {}, {}, within=(), limits=Limits(seconds=3))


def test_trusted_code_is_limited_all_the_same(tmp_path):
    begin = time.monotonic()
    with pytest.raises(CodeFailed, match=r"within|more than"):
        scored(body("while True: pass"), 1, {}, {}, within=(), limits=Limits(seconds=1))
    assert time.monotonic() - begin < 20
    code = body(f"open({str(tmp_path / 'new')!r}, 'w').close()\nreturn 1")
    assert scored(code, 1, {}, {}, within=()).tolist() == [1] and os.path.exists(tmp_path / "new")
