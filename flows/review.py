"""The page of `facemill review`: a person looks through the faces of the dataset, and says what is wrong.

Only this machine reaches it, and that is no authentication: every user of it does, and so does every page that a
browser shows. Therefore nothing but the empty page is given to anybody without the project's login, the one that the
Prefect page asks for. The page sends it with each request by itself, in a header: no cookie, which other ports of this
machine would be sent too, and nothing that a foreign page could make a browser send. A request whose Host is another
name than this machine's (DNS rebinding), or whose Origin is another page, is refused whatever else it brings.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import secrets
import socket
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from threading import RLock
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from facemill.errors import FacemillError
from tasks.commands.review import FaceList, Wanted
from tasks.curating.decisions import DECISIONS_FILE, Verdict
from tasks.work.terminal import say

PORT = 4280
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
MOST_FACES = 200
"""That a page shows at a time."""
_MOST_BYTES = 4 * 2**20
_MOST_LETTERS = 1000
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def serve_review(faces: FaceList, login: str, port: int = PORT) -> None:
    """Stays and serves the page on loopback until Ctrl-C.

    Args:
        faces: of the project.
        login: `USER:PASSWORD`, which the page asks for.
        port: 0 for any that is free.

    Raises:
        FacemillError: the port is taken.
    """
    with _listening(port) as listener:
        say(
            f"The page: http://127.0.0.1:{listener.getsockname()[1]}. It asks for the login that `facemill login` "
            "prints. Ctrl-C ends it."
        )
        config = uvicorn.Config(
            review_app(faces, login),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    faces.refresh()
    say(f"Decisions in {DECISIONS_FILE}: {len(faces.decisions)}. `dvc repro curate` applies them; commit the file.")


def review_app(faces: FaceList, login: str) -> Starlette:
    """The web application; see the module for what it guards."""
    page = files("flows").joinpath("review.html").read_text(encoding="utf-8")
    lock = RLock()

    def answer(work: Callable[[Any], Any]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that does its work in a thread, one request at a time, and tells errors in words."""

        def locked(values: Any) -> Any:
            with lock:
                faces.refresh()
                return work(values)

        async def endpoint(request: Request) -> Response:
            try:
                values = await _body(request) if request.method == "POST" else dict(request.query_params)
                found = await run_in_threadpool(locked, values | request.path_params)
            except FacemillError as error:
                return JSONResponse({"error": str(error)}, 400)
            return found if isinstance(found, Response) else JSONResponse(found)

        return endpoint

    def listed(values: dict[str, Any]) -> dict[str, Any]:
        offset, limit = _number(values, "offset", 0), _number(values, "limit", 60)
        return faces.page(Wanted.of(values), str(values.get("order", "table")), offset, min(limit, MOST_FACES))

    def crop(values: dict[str, Any]) -> Response:
        return Response(faces.crop(values["face_id"]), media_type="image/jpeg")

    def decide(values: dict[str, Any]) -> dict[str, int]:
        verdict, identity, why = (values.get(name, "") for name in ("verdict", "identity", "why"))
        if verdict not in ("", *Verdict) or not isinstance(identity, str) or not isinstance(why, str):
            raise FacemillError("a verdict is keep, drop or empty; whose and why are texts")
        ids = _ids(values) if "faces" in values else _all(faces, values)
        told = " ".join(why.split())[:_MOST_LETTERS]
        return {"faces": faces.decide(ids, Verdict(verdict) if verdict else None, identity, told)}

    async def empty_page(request: Request) -> Response:
        return HTMLResponse(page)

    routes = [
        Route("/", empty_page),
        Route("/api/overview", answer(lambda values: faces.overview())),
        Route("/api/faces", answer(listed)),
        Route("/api/crop/{face_id}", answer(crop)),
        Route("/api/decide", answer(decide), methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(_Guard, login=login, policy=_policy(page))
    return app


class _Guard:
    """Refuses what does not come from the page itself, and says to browsers what the page may do."""

    def __init__(self, app: ASGIApp, login: str, policy: str) -> None:
        self._app = app
        self._expected = "Basic " + b64encode(login.encode()).decode()
        self._answers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":  # no web sockets here
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in self._answers.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        refused = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refused or self._app)(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name(hosts[0]) not in HOSTS:
            return _refuse(421, "this page is there for this machine alone: open it at http://127.0.0.1")
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if (origin is not None and origin != f"http://{hosts[0]}") or (foreign and path != "/"):
            return _refuse(403, "a request of another page")
        if not path.startswith("/api/"):
            return None
        given = headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), self._expected.encode()):
            return _refuse(401, "this is not the login that `facemill login` prints")
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refuse(415, "JSON is expected")
        return None


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _name(host: str) -> str:
    """The name in a Host header, without its port: a tunnel may have another one."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _policy(page: str) -> str:
    """Only the page's own script and style, only its own pictures, and requests to nobody else."""

    def hashes(pattern: re.Pattern[str]) -> str:
        found = (hashlib.sha256(part.encode()).digest() for part in pattern.findall(page))
        return " ".join(f"'sha256-{b64encode(one).decode()}'" for one in found)

    return (
        f"default-src 'none'; script-src {hashes(_SCRIPT)}; style-src {hashes(_STYLE)}; img-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_BYTES:
            raise FacemillError("that is too long")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise FacemillError("a JSON object is expected")
    return values


def _number(values: dict[str, Any], name: str, otherwise: int) -> int:
    text = str(values.get(name, otherwise))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise FacemillError(f"{name}: a whole number is expected")
    return int(text)


def _ids(values: dict[str, Any]) -> list[str]:
    ids = values["faces"]
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise FacemillError("faces: a list of ids is expected")
    return ids


def _all(faces: FaceList, values: dict[str, Any]) -> list[str]:
    """All faces that the page's choice holds, if they are as many as the person saw."""
    wanted = values.get("wanted")
    if not isinstance(wanted, dict):
        raise FacemillError("either faces or a choice of them is expected")
    ids: list[str] = faces.select(Wanted.of(wanted))["face_id"].to_pylist()
    if len(ids) != values.get("expected"):
        raise FacemillError(f"there are {len(ids)} faces of this choice by now: look again")
    if not ids:
        raise FacemillError("there is no face of this choice")
    return ids


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise FacemillError(
            f"port {port} is taken: is another `facemill review` running? --port takes another"
        ) from None
