"""A Prefect server for those who have none: schedules fire only where one runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from facemill.errors import FacemillError
from tasks.work.terminal import say

START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 20.0


def serve_by_the_clock(cron: str, timezone: str, *, port: int, then_train: bool) -> None:
    """Stays and runs what is due, in the server that PREFECT_API_URL names, or else in one of its own.

    Args:
        cron: when the dataset is refreshed: minute, hour, day, month, weekday.
        timezone: the time zone that is meant.
        port: of a server of its own.
        then_train: train and convert after a refresh that brought something new.
    """
    given = os.environ.get("PREFECT_API_URL")
    with nullcontext(given) if given else local_server(port) as api:
        os.environ["PREFECT_API_URL"] = api  # Prefect reads it when it is imported
        from flows.serve import serve_all

        say(f"The Prefect page: {api.removesuffix('/api')}. Ctrl-C ends it.")
        serve_all(cron, timezone, then_train=then_train)


@contextmanager
def local_server(port: int) -> Iterator[str]:
    """Starts `prefect server start` on loopback unless one answers there already; yields the address of its API.

    Raises:
        FacemillError: it did not come up, with where to look.
    """
    api = f"http://127.0.0.1:{port}/api"
    if answers(api):
        yield api
        return
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    # The page asks this address; it would be port 4200 whatever the port.
    environment = {**os.environ, "PREFECT_SERVER_UI_API_URL": api}
    # A session of its own: Ctrl-C is for us, who still have schedules to pause there.
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_until_it_answers(api, process)
        yield api
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(api: str) -> bool:
    """Whether a Prefect server answers at this address."""
    with suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _wait_until_it_answers(api: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if answers(api):
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    raise FacemillError(
        f"no Prefect server came up at {api}: see what `prefect server start` says, or choose another --port"
    )
