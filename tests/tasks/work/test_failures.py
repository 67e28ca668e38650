"""What is raised in a worker arrives as what it was, through a real worker process and without one."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import av.error
import cv2
import pyarrow as pa
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from misbehaving import behave, behave_all, die_once, get_on, pid, singles, stay_busy, wait_long

from facemill.errors import FacemillError, InputError
from facemill.reasons import Reason
from tasks.params import ClusterParams
from tasks.work.cluster import InlinePool, Pool, open_pool, run_all
from tasks.work.failures import Cut, Lost, UnexpectedError, WorkerDied, WorkerTraceback, pack_error, unpack

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Pool]:
    with open_pool(ClusterParams(kind="local", workers=2)) as pool:
        pool.workers  # noqa: B018  # starts it
        yield pool


@pytest.fixture(params=["a worker process", "this process"])
def pool(request: pytest.FixtureRequest) -> Pool:
    return InlinePool() if request.param == "this process" else request.getfixturevalue("two_workers")


class Needy(Exception):
    """Pickles, but does not unpickle: its constructor wants more than the message."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__(f"{file}:{line}")


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock", threading.Lock())


class Foreign(BaseException):
    """As pyo3's PanicException, which is no Exception either."""


class Half:
    """A result that pickles and does not unpickle."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise LookupError("cannot be loaded")


def chained(inner: BaseException, outer: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def endless() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def av_error(kind: type[av.error.FFmpegError], number: int) -> av.error.FFmpegError:
    return kind(number, os.strerror(number), "clip.mp4")


def from_cv2() -> None:
    cv2.imdecode(None, 1)


def from_torch() -> None:
    torch.zeros(2, 3) @ torch.zeros(2, 3)


def from_pydantic() -> None:
    pydantic.TypeAdapter(int).validate_python("x")


def from_arrow() -> None:
    pa.array(["x"]).cast(pa.int32())


def from_unicode() -> None:
    b"\xff".decode()


def from_a_deep_stack() -> None:
    from_a_deep_stack()


UNEXPECTED = {
    "plain": (ValueError("wrong"), "ValueError", "wrong"),
    "without words": (KeyError(), "KeyError", ""),
    "system exit": (SystemExit("a library gives up"), "SystemExit", "a library gives up"),
    "os error without a number": (OSError("somewhere"), "OSError", "somewhere"),
    "constructor wants arguments": (Needy("a", 3), f"{__name__}.Needy", "a:3"),
    "raises in its str": (Mute(), f"{__name__}.Mute", "(no message: its __str__ raised ValueError)"),
    "does not pickle": (Unpicklable(), f"{__name__}.Unpicklable", None),
    "no Exception": (Foreign("panic"), f"{__name__}.Foreign", "panic"),
    "generator exit": (GeneratorExit(), "GeneratorExit", ""),
    "a group": (ExceptionGroup("several", [ValueError("one"), Needy("b", 1)]), "ExceptionGroup", None),
    "causes in a circle": (endless(), "ValueError", "first"),
    "from PyAV": (chained(av_error(av.error.OSError, 5), RuntimeError("it broke")), "RuntimeError", "it broke"),
    "out of memory": (torch.OutOfMemoryError("CUDA out of memory"), "torch.OutOfMemoryError", "CUDA out of memory"),
    "half a surrogate": (ValueError("caf\udce9"), "ValueError", None),
}
BY_LIBRARIES = {
    from_cv2: "cv2.error",
    from_torch: "RuntimeError",
    from_pydantic: "ValidationError",
    from_arrow: "ArrowInvalid",
    from_unicode: "UnicodeDecodeError",
    from_a_deep_stack: "RecursionError",
}


def throw(error: BaseException | str) -> None:
    """Named errors are made in the worker: some of them could not be sent there."""
    raise UNEXPECTED[error][0] if isinstance(error, str) else error


def call(function: Any) -> Any:
    return function()


def one(pool: Pool, function: Any, argument: Any) -> Any:
    [(index, result)] = list(pool.run(function, [argument]))
    assert index == 0
    return result


@pytest.mark.parametrize("name", UNEXPECTED)
def test_an_unexpected_error_keeps_its_name_its_words_and_its_traceback(pool: Pool, name: str) -> None:
    _, type_name, message = UNEXPECTED[name]
    error = one(pool, throw, name)
    assert isinstance(error, UnexpectedError)
    assert error.type_name == type_name
    assert message is None or error.message == message
    assert "in throw" in error.trace
    assert isinstance(error.__cause__, WorkerTraceback)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("function", BY_LIBRARIES, ids=lambda function: function.__name__)
def test_errors_that_libraries_raise_arrive(pool: Pool, function: Any) -> None:
    error = one(pool, call, function)
    assert isinstance(error, UnexpectedError)
    assert error.type_name.endswith(BY_LIBRARIES[function])
    assert function.__name__ in error.trace


def from_chains(cause: BaseException) -> None:
    raise FacemillError("no space left to write 1.mp4") from cause


def full_disk_of_av(_: None) -> None:
    from_chains(av_error(av.error.OSError, errno.ENOSPC))


def test_an_error_for_a_person_stays_one_whatever_caused_it(pool: Pool) -> None:
    error = one(pool, full_disk_of_av, None)
    assert type(error) is FacemillError
    assert str(error) == "no space left to write 1.mp4"
    assert "No space left on device" in str(error.__cause__)
    assert "from_chains" in str(error.__cause__)


@pytest.mark.parametrize("reason", [Reason.TRUNCATED, Reason.NOT_A_VIDEO])
def test_an_input_error_keeps_reason_and_detail(pool: Pool, reason: Reason) -> None:
    error = one(pool, throw, InputError(reason, "row 7"))
    assert isinstance(error, InputError)
    assert (error.reason, error.detail) == (reason, "row 7")


def raise_os_error(number: int) -> None:
    raise av_error(av.error.OSError, number) if number > 0 else OSError(-number, os.strerror(-number), "a", None, "b")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EAGAIN, errno.EDQUOT, errno.ESTALE])
@pytest.mark.parametrize("sign", [-1, 1], ids=["python", "PyAV"])
def test_an_os_error_keeps_its_number(pool: Pool, number: int, sign: int) -> None:
    error = one(pool, raise_os_error, sign * number)
    assert isinstance(error, OSError)
    assert type(error) is type(OSError(number, ""))
    assert error.errno == number


def return_lock(_: None) -> Any:
    return threading.Lock()


def return_lambda(_: None) -> Any:
    return lambda: None


def return_half(_: None) -> Any:
    return Half()


@pytest.mark.parametrize("function", [return_lock, return_lambda, return_half], ids=lambda function: function.__name__)
def test_a_result_that_cannot_travel_is_an_error_too(pool: Pool, function: Any) -> None:
    assert isinstance(one(pool, function, None), UnexpectedError)


def test_ctrl_c_of_a_library_ends_a_piece_but_that_of_a_person_ends_the_run(two_workers: Pool) -> None:
    error = one(two_workers, throw, KeyboardInterrupt("from a library"))
    assert isinstance(error, UnexpectedError)
    for order in (KeyboardInterrupt(), asyncio.CancelledError()):
        with pytest.raises(type(order)):
            one(InlinePool(), throw, order)


def test_no_worker_is_lost_to_an_error(two_workers: Pool) -> None:
    before = {one(two_workers, pid, None) for _ in range(8)}
    for name in UNEXPECTED:
        one(two_workers, throw, name)
    assert {one(two_workers, pid, None) for _ in range(8)} <= before | {one(two_workers, pid, None)}
    assert two_workers.workers == 2


errors = st.one_of(
    st.builds(FacemillError, st.text()),
    st.builds(InputError, st.sampled_from(Reason), st.text()),
    st.builds(OSError, st.integers(1, 140), st.text(), st.none() | st.text() | st.binary()),
    st.builds(ValueError, st.lists(st.text())),
    st.builds(Needy, st.text(), st.integers()),
)


@given(errors, st.none() | errors)
def test_whatever_is_raised_comes_back_of_its_kind(error: BaseException, cause: BaseException | None) -> None:
    error.__cause__ = cause
    back = unpack(pickle.loads(pickle.dumps(pack_error(error))))
    kind = FacemillError, InputError, OSError
    [expected] = [one for one in kind if isinstance(error, one)] or [UnexpectedError]
    assert isinstance(back, expected)
    if expected is not UnexpectedError:
        assert str(back) == str(error)
    if isinstance(back, InputError | OSError):
        assert vars(back) == vars(error)


# --- the policy


def test_a_worker_that_dies_is_told_as_such(two_workers: Pool) -> None:
    assert isinstance(one(two_workers, behave, "die"), WorkerDied)
    assert isinstance(two_workers.run_alone(behave, "exit"), WorkerDied)
    assert two_workers.run_alone(behave, 4) == 8


def test_pieces_that_kill_their_worker_are_lost_and_no_neighbour_is(two_workers: Pool) -> None:
    items = [1, "die", 2, 3, "exit", 4, "raise", 5, "reason", 6]
    found = dict(run_all(two_workers, behave, items))
    killed = Lost(Reason.WORKER_KILLED, "")
    poison, truncated = Lost(Reason.PROCESSING_ERROR, "RuntimeError: poison"), Lost(Reason.TRUNCATED, "row 7")
    assert [found[index] for index in range(10)] == [2, killed, 4, 6, killed, 8, poison, 10, truncated, 12]


def test_a_group_is_cut_and_loses_only_the_guilty(two_workers: Pool) -> None:
    found = dict(run_all(two_workers, behave_all, [[1, 2], [3, "die", 4], ["raise", 5], [6]], singles))
    killed, poison = Lost(Reason.WORKER_KILLED, ""), Lost(Reason.PROCESSING_ERROR, "RuntimeError: poison")
    assert found == {0: 6, 1: Cut((6, killed, 8)), 2: Cut((poison, 10)), 3: 12}


def test_a_full_disk_ends_the_run_with_one_error_whoever_meets_it(pool: Pool) -> None:
    with pytest.raises(FacemillError, match=r"no space left to write /somewhere/1\.mp4"):
        list(run_all(pool, behave, [1, "full", 2, "full"]))


def test_a_piece_is_tried_again_when_nobody_else_is_at_work(two_workers: Pool, tmp_path: Path) -> None:
    """Other threads share the pool, as the tasks of the flow `convert` do."""
    stop = threading.Event()
    done = []

    def keep_busy() -> None:
        while not stop.is_set():
            done.append(one(two_workers, stay_busy, str(tmp_path)))

    others = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        assert list(run_all(two_workers, die_once, [str(tmp_path)])) == [(0, 0)]
    finally:
        stop.set()
        for thread in others:
            thread.join(30)
    assert len(done) >= 3  # and they went on


def test_a_piece_that_gets_on_no_more_ends_with_its_worker_and_no_other_does() -> None:
    with open_pool(ClusterParams(kind="local", workers=2, silence_s=1.5)) as pool:
        found = dict(run_all(pool, get_on, [1, "silent", "unwatched", 2]))
    lost = found.pop(1)
    assert found == {0: 2, 2: 0, 3: 4}
    assert lost.reason == Reason.WORKER_HUNG
    assert re.fullmatch(r"nothing for 1.5 s, in get_on \(misbehaving.py:\d+\)", lost.detail)


INTERRUPTED = """
import signal, sys
from functools import partial
from misbehaving import mark_slowly
from tasks.params import ClusterParams
from tasks.work.cluster import open_pool, run_all
from tasks.work.interrupts import finishing
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests in the background ignores it
try:
    with open_pool(ClusterParams(kind=sys.argv[2], workers=2)) as pool, finishing(pool, "pieces"):
        paths = [f"{sys.argv[1]}/{number}" for number in range(12)]
        list(run_all(pool, partial(mark_slowly, seconds=float(sys.argv[3])), paths))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", ["local", "inline"])
@pytest.mark.parametrize("times", [1, 2])
def test_the_first_ctrl_c_ends_a_run_when_what_is_at_work_is_done_the_second_at_once(
    kind: str, times: int, tmp_path: Path
) -> None:
    """It reaches all processes, as from a terminal."""

    def marks(suffix: str) -> set[str]:
        return {path.stem for path in tmp_path.glob(f"*.{suffix}")}

    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{PROJECT}"}
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), kind, "2" if times == 1 else "20"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, process_group=0, text=True) as process:
        deadline = time.monotonic() + 60
        while len(marks("begun")) < (2 if kind == "local" else 1):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Ends when the pieces at work are done." in said
    assert len(marks("begun")) <= 4  # of twelve
    if times == 1:
        assert marks("begun") == marks("done")
    else:
        assert not marks("done")


def test_closing_a_pool_ends_what_other_threads_wait_for() -> None:
    raised: list[BaseException] = []

    def work(pool: Pool) -> None:
        try:
            list(run_all(pool, wait_long, [1]))
        except BaseException as error:
            raised.append(error)

    with open_pool(ClusterParams(kind="local", workers=1)) as pool:
        assert pool.workers == 1
        threads = [threading.Thread(target=work, args=(pool,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        start = time.monotonic()
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - start < 30
    assert [type(error) for error in raised] == [CancelledError, CancelledError]
