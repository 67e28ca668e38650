"""A small web server on loopback, and a stand-in for the library that drives Chrome."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Site:
    """What the server answers by path, with its query or without; `visits` counts how often each was asked for;
    `clients`: each connection."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.visits: dict[str, int] = {}
        self.clients: set[tuple[str, int]] = set()
        self.asked: list[tuple[dict[str, str], dict[str, str]]] = []
        self.retry_after = "0"
        self.url = ""

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Serves a body with headers (`_` stands for `-`); returns the address."""

        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            request.wfile.write(body)

        self.answers[path] = answer
        return self.url + path

    def interface(self, path: str, answers: Callable[[dict[str, str]], bytes | Mapping[str, object] | int]) -> str:
        """Serves an interface: parameters in, JSON, bytes or a status out; `asked` keeps parameters and headers."""

        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            parameters = dict(parse_qsl(urlsplit(request.path).query))
            self.asked.append((parameters, dict(request.headers)))
            said = answers(parameters)
            body = b"" if isinstance(said, int) else said if isinstance(said, bytes) else json.dumps(said).encode()
            request.send_response(said if isinstance(said, int) else 200)
            request.send_header("Content-Length", str(len(body)))
            if isinstance(said, int):
                request.send_header("Retry-After", self.retry_after)
            request.end_headers()
            request.wfile.write(body)

        self.answers[path] = answer
        return self.url + path


@pytest.fixture
def site() -> Iterator[Site]:
    """An HTTP server on a free port of loopback; paths that nobody put there answer 404."""
    found = Site()
    with _serve(found, None):
        yield found


@contextmanager
def _serve(found: Site, context: ssl.SSLContext | None) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.visits[self.path] = found.visits.get(self.path, 0) + 1
            found.clients.add(self.client_address)
            answer = found.answers.get(self.path) or found.answers.get(self.path.partition("?")[0])
            if answer is not None:
                answer(self)
            else:
                self.send_error(404)

        def log_message(self, *parts: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, address: object) -> None:
            pass  # a client that hangs up is what several tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        # The handshake belongs to the connection's own thread: a client that refuses us must not stop the server.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a package google_images_download, whose `download(arguments)` has the given body, before the real one."""

    def install(body: str) -> None:
        package = tmp_path / "stand-in" / "google_images_download"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        lines = "\n".join(f"        {line}" for line in body.splitlines())
        (package / "google_images_download.py").write_text(
            "import json, os, subprocess, sys, time\n"
            f"class googleimagesdownload:\n    def download(self, arguments):\n{lines}\n"
        )
        monkeypatch.syspath_prepend(str(package.parent))

    return install


class SecureSite(Site):
    """A site with TLS; `authority` is the file of the certificate that signs for it."""

    authority: Path


@pytest.fixture
def https_site(tmp_path: Path) -> Iterator[SecureSite]:
    """An HTTPS server on a free port of loopback, with a certificate made for this test."""
    found = SecureSite()
    found.authority, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(found.authority, key)
    with _serve(found, context):
        yield found


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "facemill tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
