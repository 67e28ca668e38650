"""The project's Prefect server: one that is there, or one that this process brings along.

A server that others may use, too (`facemill serve`, `facemill server`), is found through `.prefect/server.json`: the
server's process holds a lock on that file for as long as it lives, so that what stands there is never out of date, and
never a stranger's. A single flow that finds none brings a temporary one, without page and scheduler, for itself alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self
from urllib.parse import urlsplit

from facemill.errors import FacemillError
from facemill.locks import is_locked, try_lock
from flows.login import CLIENT, PROFILES, SERVER, ensure_login
from flows.project import API, LOOPBACK_NAMES, given_api, home_of
from tasks.work.terminal import say

PORT = 4200
LOGIN_HINT = "`facemill login` says how to log in."
START_TIMEOUT_S = 300.0
"""A first start makes the database: 15 s on two idle cores, 105 s measured on two that others kept busy."""
_STOP_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 5.0
_BACKLOG = 1024
_LOOK_EVERY_S = 1.0
_MOST_STARTS, _STARTS_WITHIN_S = 5, 600.0
_SAID_LETTERS = 300
_UNKNOWN_REVISION = "Can't locate revision"
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """A server that this process and those that it starts use from now on.

    Attributes:
        api: the address of its API; the environment names it to Prefect.
    """

    def __init__(self, api: str) -> None:
        self.api = api

    @property
    def page(self) -> str:
        """The address of its page."""
        return _page_of(self.api)

    def wait(self) -> None:
        """Returns when it answers. Until then there is time to import what is needed.

        Raises:
            FacemillError: it did not come up, with the reason.
        """

    def keep(self) -> None:
        """Starts it again if it is our own and has ended; to be called once in a while.

        Raises:
            FacemillError: it ends again and again, with the reason.
        """


@contextmanager
def project_server(project: Path, *, port: int | None = None) -> Iterator[Server]:
    """The server that PREFECT_API_URL names, else the one that runs for the project, else one of our own on loopback.

    Args:
        project: the project's folder.
        port: of one of our own that others may find and that has page and scheduler; without it a temporary one. It
            ends with the block.

    Raises:
        FacemillError: the port is taken, or the server that was found has another login; in the block it went away, or
            could not do what it was asked, as with a full disk.
    """
    if given := given_api(project):
        os.environ[API] = given
        with _errors_in_words(given):
            yield Server(given)
        return
    login = ensure_login(home_of(project))
    if found := _found(project, login):
        with _set_up(found, login), _errors_in_words(found):
            yield Server(found)
        return
    with _OwnServer(project, port, login) as server, _set_up(server.api, login), _errors_in_words(server.api):
        yield server


def running_server(project: Path) -> str | None:
    """The address of the API of the project's server, if one runs that others may use."""
    path = _record(project)
    return _address(path) if is_locked(path) else None  # a record that nobody holds is of a server that has ended


def stay(project: Path, port: int) -> None:
    """Runs the project's server until it is interrupted; says so and returns if it runs already.

    Raises:
        FacemillError: it did not come up, or ends again and again.
    """
    if given := given_api(project):
        raise FacemillError(f"{API} names the server {given}: unset it to start the project's own")
    if found := running_server(project):
        say(f"The Prefect page: {_page_of(found)} (it runs already). {LOGIN_HINT}")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started, too
    with project_server(project, port=port) as server:
        server.wait()
        say(f"The Prefect page: {server.page}. {LOGIN_HINT} Ctrl-C ends it.")
        while True:
            time.sleep(_LOOK_EVERY_S)
            server.keep()


def describe_login(project: Path) -> str:
    """Where the page is, and what it asks for."""
    login = ensure_login(home_of(project))
    found = running_server(project)
    return (
        f"page   {_page_of(found) if found else 'no server runs: start `facemill serve` or `facemill server`'}\n"
        f"login  {login}\n"
        f"The page asks for the login once in each browser. It lies in {home_of(project) / PROFILES}."
    )


class _OwnServer(Server):
    """A server that ends with the block, and with this process if that is killed.

    The socket stays open here, too: while a server that has ended starts again, requests wait instead of failing, and
    nobody else can answer them.
    """

    def __init__(self, project: Path, port: int | None, login: str) -> None:
        self._project, self._kind = project, "temporary" if port is None else "shared"
        self._log = _log(project)
        self._socket = _listening(port)
        super().__init__(f"http://{LOOPBACK_NAMES[0]}:{self._socket.getsockname()[1]}/api")
        self._environment = _server_environment(project, self.api, login)
        self._lock = None if port is None else _locked(project, self.api)
        self._starts: deque[float] = deque(maxlen=_MOST_STARTS)

    def __enter__(self) -> Self:
        with suppress(FileNotFoundError):
            self._log.replace(self._log.with_name(f"{self._log.name}.1"))
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._pipe)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()
        if self._lock is not None:
            self._lock.close()

    def wait(self) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise FacemillError(f"the Prefect server ended while it started: {_reason(self._log)}")
            if _answers(self.api, min(_ANSWER_TIMEOUT_S, end - time.monotonic())):
                return
            time.sleep(0.1)
        raise FacemillError(f"the Prefect server did not answer within {START_TIMEOUT_S:.0f} s: see {self._log}")

    def keep(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        if len(self._starts) == _MOST_STARTS and time.monotonic() - self._starts[0] < _STARTS_WITHIN_S:
            raise FacemillError(f"the Prefect server has ended {_MOST_STARTS} times in a row: {_reason(self._log)}")
        say(f"the Prefect server has ended with code {code}: starts again", error=True)
        os.close(self._pipe)
        self._start()

    def _start(self) -> None:
        reading, self._pipe = os.pipe()
        inherited = [self._socket.fileno(), reading, *([] if self._lock is None else [self._lock.fileno()])]
        arguments = [str(self._socket.fileno()), str(reading), str(self._log), self._kind, *LOOPBACK_NAMES]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.server_process", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=inherited,
                start_new_session=True,
            )
        os.close(reading)
        self._starts.append(time.monotonic())


def _server_environment(project: Path, api: str, login: str) -> dict[str, str]:
    port = urlsplit(api).port
    return {
        # Prefect makes the page where it is installed itself, where a container's user, for one, may not write.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home_of(project) / "page"),
        **os.environ,
        SERVER: login,
        "PREFECT_SERVER_UI_API_URL": api,  # what the page asks; it would be port 4200 whatever the port
        # A page of another origin gets no answer that it could read; without the login it could not ask for much.
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in LOOPBACK_NAMES),
    }


@contextmanager
def _set_up(api: str, login: str) -> Iterator[None]:
    """Names the server to Prefect in this process, and to those that it starts."""
    before = {name: os.environ.get(name) for name in (API, CLIENT)}
    os.environ |= {API: api, CLIENT: login}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _errors_in_words(api: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        import httpx  # what Prefect's errors derive from; only who meets one needs it

        asked_wrongly = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
        if not isinstance(error, httpx.HTTPError) or asked_wrongly:
            raise
        said = " ".join(str(error).split())[:_SAID_LETTERS] or type(error).__name__
        raise FacemillError(
            f"the Prefect server at {_page_of(api)} went away or cannot do what it is asked ({said}): look at its log "
            "(.prefect/server.log) and whether its disk is full, and run the same command again"
        ) from error


def _listening(port: int | None) -> socket.socket:
    """A socket that listens already: from now on nobody else can answer on that port."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((LOOPBACK_NAMES[0], port or 0))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise FacemillError(
            f"port {port} is taken by another program ({error.strerror}): choose another --port. If that is a Prefect "
            f"server that you want to use, set {API} to its address, such as http://{LOOPBACK_NAMES[0]}:{port}/api"
        ) from error
    return made


def _locked(project: Path, api: str) -> IO[str]:
    """The project's record of its server, with the address in it and the lock on it.

    Raises:
        FacemillError: another one has just been started.
    """
    stream = try_lock(_record(project))
    if stream is None:
        raise FacemillError(f"another Prefect server of {project} is just starting: run the same command again")
    stream.truncate(0)
    stream.write(json.dumps({"api": api}))
    stream.flush()
    return stream


def _address(path: Path) -> str:
    """What a server that is just starting may not have written yet."""
    end = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        with suppress(json.JSONDecodeError, KeyError):
            return str(json.loads(path.read_text())["api"])
        if time.monotonic() > end:
            raise FacemillError(f"{path} is held by a process that has not written an address into it: end that one")
        time.sleep(0.05)


def _page_of(api: str) -> str:
    return api.removesuffix("/").removesuffix("/api")


def _log(project: Path) -> Path:
    return home_of(project) / "server.log"


def _record(project: Path) -> Path:
    return home_of(project) / "server.json"


def _reason(log: Path) -> str:
    """The last line of the log, and what it means where that is known."""
    text = log.read_text(errors="replace").strip()
    if _UNKNOWN_REVISION in text:
        return f"its database in {log.parent} was made by another version of Prefect: install that one, or move it away"
    return f"{text.splitlines()[-1] if text else 'it said nothing'} (all of it: {log})"


def _answers(api: str, timeout_s: float) -> bool:
    with suppress(OSError), _DIRECTLY.open(f"{api}/health", timeout=timeout_s) as answer:
        return bool(answer.status == 200)
    return False


def _found(project: Path, login: str) -> str | None:
    """The API of the project's running server, once it answers; None if none runs, or it has just ended.

    Raises:
        FacemillError: it has another login than the project, since it was started before that was changed; or it does
            not answer.
    """
    end = time.monotonic() + START_TIMEOUT_S
    while api := running_server(project):
        if _accepts(api, login):
            return api
        if time.monotonic() > end:
            raise FacemillError(f"the project's Prefect server at {_page_of(api)} does not answer: restart it")
        time.sleep(_LOOK_EVERY_S)
    return None


def _accepts(api: str, login: str) -> bool:
    """Whether a server answers; it may be starting or ending."""
    known = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    try:
        with _DIRECTLY.open(urllib.request.Request(f"{api}/admin/version", headers=known), timeout=_ANSWER_TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise FacemillError(
                f"the Prefect server at {_page_of(api)} has another login than the project: restart that server"
            ) from error
        return False
    except OSError:
        return False
