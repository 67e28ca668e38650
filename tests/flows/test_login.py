"""Who may talk to the project's Prefect server: nobody who cannot read .prefect, whoever else reaches its port."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import websockets

from facemill.errors import FacemillError
from flows.login import ensure_login, read_profile
from flows.project import enter
from flows.server import project_server

START_S = 180.0
NOBODY = 65534
PREFECT = "PREFECT_"


@dataclass(frozen=True)
class Served:
    """A project whose server runs."""

    project: Path
    process: subprocess.Popen[str]
    page: str

    @property
    def api(self) -> str:
        return f"{self.page}/api"

    @property
    def login(self) -> httpx.BasicAuth:
        return httpx.BasicAuth(*ensure_login(self.project / ".prefect").split(":"))


def without_prefect() -> dict[str, str]:
    """The environment of somebody who has set nothing of Prefect's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFECT)}


def facemill(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.command_line", *arguments],
        cwd=project,
        env=without_prefect(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A project's folder that every user of the machine may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="facemill-login-"))
    folder.chmod(0o755)
    (folder / "params.yaml").write_text("for everybody\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(open_folder: Path, database: Path) -> Iterator[Served]:
    """`facemill server` in that folder, as a user would start it."""
    (open_folder / ".prefect").mkdir()
    shutil.copy(database, open_folder / ".prefect")
    with facemill(open_folder, "server", "--port", str(free_port())) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line.startswith("The Prefect page: http://127.0.0.1:"), process.stderr.read()
            yield Served(open_folder, process, line.split()[3].rstrip("."))
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """.prefect of a project, not there yet; nothing of Prefect's is set."""
    for name in [name for name in os.environ if name.startswith(PREFECT)]:
        monkeypatch.delenv(name)
    return tmp_path / ".prefect"


def test_the_login_is_made_once_and_for_its_owner_alone(home: Path) -> None:
    login = ensure_login(home)
    assert ensure_login(home) == login
    assert len(login.split(":")[1]) >= 32
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "profiles.toml").stat().st_mode) == 0o600


def test_two_first_starts_at_once_make_one_login(home: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(ensure_login, [home] * 8))) == 1


def test_a_folder_that_stood_open_is_closed(home: Path) -> None:
    ensure_login(home)
    home.chmod(0o755)
    (home / "profiles.toml").chmod(0o644)
    ensure_login(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "profiles.toml").stat().st_mode) == 0o600


def test_what_a_person_wrote_into_the_profile_stays(home: Path) -> None:
    home.mkdir()
    (home / "profiles.toml").write_text(
        '# mine\nactive = "away"\n[profiles.away]\nPREFECT_API_AUTH_STRING = "them:secret" # theirs\n'
    )
    login = ensure_login(home)
    text = (home / "profiles.toml").read_text()
    assert "# mine" in text
    assert "# theirs" in text
    name, values = read_profile(home / "profiles.toml")
    assert name == "away"
    assert values == {"PREFECT_API_AUTH_STRING": "them:secret", "PREFECT_SERVER_API_AUTH_STRING": login}


@pytest.mark.parametrize("text", ["active =", 'active = 3\n[profiles.x]\na = "b"', 'profiles = "x"', "\udcff"])
def test_a_broken_profile_is_named(home: Path, text: str) -> None:
    home.mkdir()
    (home / "profiles.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FacemillError, match=r"profiles\.toml.*delete"):
        ensure_login(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="wants root, to give a folder to somebody else")
def test_a_folder_of_somebody_else_is_refused(home: Path) -> None:
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(FacemillError, match="belongs to the user with the number 65534"):
        ensure_login(home)


@pytest.mark.parametrize(("api", "sent"), [("https://prefect.example/api", ""), ("http://127.0.0.1:9/api", None)])
def test_the_login_is_shown_to_no_server_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch, api: str, sent: str | None
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(home.parent)
    os.environ["PREFECT_API_URL"] = api
    (home.parent / "params.yaml").touch()
    enter(home.parent)
    assert os.environ.get("PREFECT_API_AUTH_STRING") == sent  # None: Prefect takes the profile's


def test_nothing_is_told_without_the_login(served: Served) -> None:
    paths = ["admin/settings", "flow_runs/filter", "deployments/filter", "block_documents/filter", "csrf-token"]
    for path in paths:
        for method in ("GET", "POST"):
            assert httpx.request(method, f"{served.api}/{path}", json={}).status_code == 401, path
    wrong = httpx.BasicAuth("facemill", "guessed")
    assert httpx.post(f"{served.api}/flow_runs/filter", json={}, auth=wrong).status_code == 401
    assert httpx.post(f"{served.api}/flow_runs/filter", json={}, auth=served.login).status_code == 200


def test_the_page_asks_for_the_login(served: Served) -> None:
    assert httpx.get(f"{served.page}/ui-settings").json()["auth"] == "BASIC"
    assert "<html" in httpx.get(served.page, follow_redirects=True).text


def test_the_page_wants_no_environment_that_can_be_written_to(served: Served) -> None:
    """Prefect makes it beside its own code, which belongs to root in a container: then there was no page at all."""
    assert list((served.project / ".prefect" / "page").glob("*/index.html"))


def test_a_socket_that_stays_open_wants_the_login_too(served: Served) -> None:
    async def events(token: str | None) -> Any:
        address = served.api.replace("http", "ws", 1) + "/events/out"
        async with websockets.connect(address, subprotocols=[websockets.Subprotocol("prefect")]) as opened:
            await opened.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(await opened.recv())

    for token in (None, "facemill:guessed"):
        with pytest.raises(websockets.ConnectionClosed):
            asyncio.run(events(token))
    assert asyncio.run(events(ensure_login(served.project / ".prefect")))["type"] == "auth_success"


def test_another_host_name_is_refused(served: Served) -> None:
    for path in ("/", "/api/health", "/api/flow_runs/filter"):
        answer = httpx.get(f"{served.page}{path}", headers={"Host": "rebound.example"}, auth=served.login)
        assert (answer.status_code, answer.text) == (400, "Invalid host header")
    name = served.page.replace("127.0.0.1", "localhost").removeprefix("http://")
    assert httpx.get(f"{served.page}/api/health", headers={"Host": name}).status_code == 200


def test_another_origin_may_read_no_answer(served: Served) -> None:
    def allowed(origin: str) -> str | None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return httpx.options(f"{served.api}/flow_runs/filter", headers=asked).headers.get("access-control-allow-origin")

    assert allowed("https://elsewhere.example") is None
    assert allowed("null") is None
    assert allowed(served.page) == served.page


def test_it_listens_on_loopback_only(served: Served) -> None:
    processes = [served.process.pid, *(one.pid for one in psutil.Process(served.process.pid).children(recursive=True))]
    found = {one.laddr for pid in processes for one in psutil.Process(pid).net_connections() if one.status == "LISTEN"}
    assert {f"http://{address.ip}:{address.port}" for address in found} == {served.page}


@pytest.mark.skipif(os.geteuid() != 0, reason="wants root, to become another user")
def test_another_user_of_the_machine_is_refused(served: Served) -> None:
    secret = served.project / ".prefect"

    def asks() -> None:
        assert (served.project / "params.yaml").read_text() == "for everybody\n"  # they do reach the project
        for name in ("profiles.toml", "prefect.db", "server.json", "server.log"):
            assert cannot(lambda name=name: (secret / name).read_bytes()), name
        assert cannot(lambda: list(secret.iterdir()))
        assert httpx.post(f"{served.api}/flow_runs/filter", json={}).status_code == 401
        run = {"name": "x", "entrypoint": "/tmp/theirs.py:code"}
        assert httpx.post(f"{served.api}/deployments/", json=run).status_code == 401

    assert as_nobody(asks) == 0


def test_commands_say_where_the_page_is_and_how_to_log_in(served: Served) -> None:
    process = facemill(served.project, "login")
    output, _ = process.communicate(timeout=60)
    assert output.splitlines()[0] == f"page   {served.page}"
    assert output.splitlines()[1] == f"login  {ensure_login(served.project / '.prefect')}"
    again = facemill(served.project, "server", "--port", "1")
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert f"{served.page} (it runs already)" in output


def test_prefects_own_commands_find_the_login(served: Served) -> None:
    shutil.copy(Path(__file__).resolve().parents[2] / "prefect.toml", served.project)
    command = [sys.executable, "-m", "prefect", "work-pool", "ls"]
    named = without_prefect() | {"PREFECT_API_URL": served.api}
    done = subprocess.run(command, cwd=served.project, env=named, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    elsewhere = subprocess.run(command, cwd="/", env=named, capture_output=True, text=True, timeout=120)
    assert elsewhere.returncode != 0
    assert "401" in elsewhere.stdout + elsewhere.stderr


@pytest.fixture
def old_home(home: Path, database: Path) -> Path:
    """.prefect of a project in which a server has run before."""
    home.mkdir()
    (home.parent / "params.yaml").touch()
    shutil.copy(database, home)
    return home


def test_a_port_that_somebody_else_has_is_said(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FacemillError, match=f"port {port} is taken"), project_server(home.parent, port=port):
            pass


def test_the_server_of_one_flow_wants_the_login_too_and_ends_with_it(old_home: Path) -> None:
    with project_server(old_home.parent) as server:
        server.wait()
        assert os.environ["PREFECT_API_URL"] == server.api
        assert httpx.post(f"{server.api}/flow_runs/filter", json={}).status_code == 401
        login = httpx.BasicAuth(*os.environ["PREFECT_API_AUTH_STRING"].split(":"))
        assert httpx.post(f"{server.api}/flow_runs/filter", json={}, auth=login).status_code == 200
    assert "PREFECT_API_URL" not in os.environ
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.api}/health")


def test_a_server_does_not_outlive_a_starter_that_is_killed(old_home: Path) -> None:
    with facemill(old_home.parent, "server", "--port", str(free_port())) as process:
        try:
            assert process.stdout is not None
            page = process.stdout.readline().split()[3].rstrip(".")
            [server] = psutil.Process(process.pid).children()
            assert "flows.server_process" in server.cmdline()
        finally:
            process.kill()
    server.wait(60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{page}/api/health")


def as_nobody(action: Callable[[], None]) -> int:
    """Runs something in a forked child that has become another user; its exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            action()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def cannot(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError:
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
