"""Workers that die, hang or take too much name their job, and the rest goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aide_monai.errors import InputError, Problem
from aide_monai.utils.workers import Ahead
from tests.io.deadly_decoders import end_idle_workers

WORK = "hostile_work:work"
HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    end_idle_workers()  # they do not know the path yet
    monkeypatch.syspath_prepend(HERE)
    yield
    end_idle_workers()


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("die 7", r"a file at which its decoder died \(exit code 7\)"),
        ("die 0", r"a file at which its decoder died \(exit code 0\)"),
        (f"signal {int(signal.SIGSEGV)}", r"a file at which its decoder died \(SIGSEGV\)"),
        (f"signal {int(signal.SIGKILL)}", r"died \(SIGKILL, often too little memory\)"),
        ("refuse", "found nothing"),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_rest_goes_on(job: str, message: str, processes: int) -> None:
    jobs = ["a", job, "b", job, "c"]
    with Ahead(WORK, jobs, processes=processes) as ahead:
        for one in jobs:
            if one == job:
                with pytest.raises(InputError, match=message):
                    ahead.result(one)
            else:
                assert ahead.result(one) == ({"job": one}, [])


def test_a_job_that_hangs() -> None:
    message = r"a file at which its decoder works for more than 0\.5 s"
    with Ahead(WORK, ["sleep"], limit_s=0.5) as ahead, pytest.raises(InputError, match=message):
        ahead.result("sleep")
    with Ahead(WORK, ["a"]) as ahead:
        assert ahead.result("a")[0] == {"job": "a"}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux' own")
def test_a_job_that_takes_too_much() -> None:
    jobs = [f"take {2**20}", f"take {2**30}", f"take {2**20}"]
    with Ahead(WORK, jobs, memory_bytes=2**28) as ahead:
        assert ahead.result(jobs[0])[1][0].tolist() == [1]
        with pytest.raises(InputError, match="takes more memory than its decoder may have"):
            ahead.result(jobs[1])
        assert ahead.result(jobs[2])[1][0].tolist() == [1]


@pytest.mark.parametrize(("job", "message"), [("bug", "KeyError: 'a mistake"), ("strange", "a job gave object")])
def test_our_own_mistakes_are_no_mistakes_of_the_user(job: str, message: str) -> None:
    with Ahead(WORK, [job, "a"]) as ahead:
        with pytest.raises(RuntimeError, match=message):
            ahead.result(job)
        assert ahead.result("a")[0] == {"job": "a"}


def test_problems_and_warnings_arrive() -> None:
    with Ahead(WORK, ["refuse", "warn"]) as ahead:
        with pytest.raises(InputError) as caught:
            ahead.result("refuse")
        assert caught.value.title == "found nothing"
        assert caught.value.problems == (Problem("2 axes", "3", "cut", "x.nii", "a", "warning"), Problem("two"))
        assert str(caught.value).splitlines()[1:] == ['  - case "a", x.nii: found 2 axes; expected 3; cut', "  - two"]
        with pytest.warns(UserWarning, match="a doubt"):
            ahead.result("warn")


def test_arrays_arrive_as_they_were() -> None:
    sys.path.insert(0, HERE)
    from hostile_work import work

    with Ahead(WORK, ["arrays"]) as ahead:
        arrived = ahead.result("arrays")[1]
    for found, sent in zip(arrived, work("arrays")[1], strict=True):
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        assert found.flags.writeable
        np.testing.assert_array_equal(found, sent)
    assert arrived[1].strides == work("arrays")[1][1].strides  # the order of the axes in memory too


def test_two_work_at_a_time(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    jobs = [f"wait {first}:{second}", f"wait {second}:{first}"]
    with Ahead(WORK, jobs, processes=2, limit_s=60) as ahead:
        assert [ahead.result(job)[0]["job"] for job in jobs] == jobs


def test_jobs_left_out_and_jobs_not_announced() -> None:
    with Ahead(WORK, ["sleep", "a", "die 3", "b", "a"], processes=2) as ahead:
        assert ahead.result("a")[0] == {"job": "a"}
        assert ahead.result("other")[0] == {"job": "other"}
        assert ahead.result("b")[0] == {"job": "b"}
        assert ahead.result("a")[0] == {"job": "a"}
        assert ahead.result("a")[0] == {"job": "a"}
    with Ahead(WORK, []) as ahead:
        assert ahead.result("a")[0] == {"job": "a"}


def test_processes_are_used_again() -> None:
    found = []
    for _ in range(2):
        with Ahead(WORK, ["pid"], processes=1) as ahead:
            found.append(ahead.result("pid")[0]["pid"])
    assert found[0] == found[1]
    os.kill(found[0], signal.SIGKILL)  # between two uses
    with Ahead(WORK, ["pid"], processes=1) as ahead:
        assert ahead.result("pid")[0]["pid"] not in found


def test_nothing_is_left_when_somebody_interrupts() -> None:
    with Ahead(WORK, ["sleep", "sleep"], processes=2) as ahead:
        pids = [process._process.pid for process in ahead._busy.values()]
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            ahead.result("sleep")
        signal.signal(signal.SIGALRM, before)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_workers_end_with_their_parent() -> None:
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from aide_monai.utils.workers import Ahead\n"
        "ahead = Ahead('hostile_work:work', ['pid', 'sleep'], processes=2)\n"
        "with ahead:\n"
        "    print(ahead.result('pid')[0]['pid'], *[p._process.pid for p in ahead._busy.values()], flush=True)\n"
        "    ahead.result('sleep')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, HERE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(text) for text in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    limit = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < limit, "workers that outlive their parent"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_copy_of_the_process_has_workers_of_its_own() -> None:
    with Ahead(WORK, ["pid"], processes=1) as ahead:
        ours = ahead.result("pid")[0]["pid"]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with Ahead(WORK, ["pid"], processes=1) as ahead:
            os.write(write, str(ahead.result("pid")[0]["pid"]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 100)) != ours
