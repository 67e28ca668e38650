"""The local cluster is ours alone: no other user of the machine can talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import rpc
from distributed.security import Security
from misbehaving import behave, pid

from facemill.errors import FacemillError
from tasks.params import ClusterParams, ClusterTls
from tasks.work.cluster import open_pool, run_all
from tasks.work.dask_pool import DaskPool
from tasks.work.tls import one_time_security, stated_security


@pytest.fixture(scope="module")
def listening_before() -> set[tuple[str, int]]:
    """Other tests' servers, which may be children of this process and live on."""
    return addresses()


@pytest.fixture(scope="module")
def private(listening_before: set[tuple[str, int]]) -> Iterator[DaskPool]:
    with open_pool(ClusterParams(kind="local", workers=2)) as pool:
        assert isinstance(pool, DaskPool)
        assert pool.workers == 2
        yield pool


def addresses() -> set[tuple[str, int]]:
    """What this process and all that it started listens on."""
    me = psutil.Process()
    found = [one for process in (me, *me.children(recursive=True)) for one in process.net_connections("inet")]
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


def scheduler(pool: DaskPool) -> str:
    return str(pool.client.scheduler.address)


STRANGERS = {
    "without a certificate": lambda: None,
    "with a certificate of another run": one_time_security,
}


TLS = ("tls_ca_file", "tls_client_cert", "tls_client_key")


def refused(address: str, security: Security | None) -> bool:
    """Whether the scheduler does not answer; to whom it answers, it would also run what that one sends."""

    async def ask() -> Any:
        known = (security or Security()).get_connection_args("client")
        async with rpc(address, connection_args=known, timeout=20) as other_side:
            return await other_side.identity()

    try:
        return "Scheduler" not in asyncio.run(ask())["type"]
    except (OSError, TypeError, RuntimeError):  # TypeError: Dask's, for a scheme that wants certificates
        return True


def test_the_pool_itself_works_and_a_copy_of_its_certificate_would(private: DaskPool) -> None:
    assert dict(run_all(private, behave, [1, 2])) == {0: 2, 1: 4}
    assert not refused(scheduler(private), private.client.security)


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_a_second_client_is_refused(private: DaskPool, stranger: str, scheme: str) -> None:
    assert refused(scheduler(private).replace("tls", scheme), STRANGERS[stranger]())


def test_everything_listens_on_loopback_and_says_nothing_to_strangers(
    private: DaskPool, listening_before: set[tuple[str, int]]
) -> None:
    assert private.workers == 2
    listening = sorted(addresses() - listening_before)
    assert len(listening) >= 5  # scheduler, two nannies, two workers
    for host, port in listening:
        assert host == "127.0.0.1"
        with socket.create_connection((host, port), timeout=5) as plain:
            plain.sendall(b"GET /info/main/workers.html HTTP/1.0\r\n\r\n")
            assert b"HTTP" not in said(plain), port
        assert handshake_without_certificate(port), port


def said(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1000)
    except OSError:
        return b""


def handshake_without_certificate(port: int) -> bool:
    """Whether it is refused. TLS 1.3 tells so at the first read, not in the handshake."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return connection.recv(1000) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


AS_NOBODY = """
import json, os, sys
sys.path[:0] = sys.argv[2:]
from test_private_cluster import STRANGERS, Security, one_time_security, refused
refused("tls://127.0.0.1:9", one_time_security())  # imports what it needs, as long as it may read that
os.setgroups([]), os.setgid(65534), os.setuid(65534)
addresses = sys.argv[1], sys.argv[1].replace("tls", "tcp")
everything = all(refused(address, make()) for make in STRANGERS.values() for address in addresses)
print(os.getuid(), everything, refused(addresses[0], Security(**json.load(sys.stdin))))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_cannot_connect(private: DaskPool) -> None:
    """With a copy of the certificate it could: so it is that which keeps it out."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    command = [sys.executable, "-c", AS_NOBODY, scheduler(private), *paths]
    copy = json.dumps({name: getattr(private.client.security, name) for name in ("require_encryption", *TLS)})
    ran = subprocess.run(command, input=copy, capture_output=True, text=True, timeout=240, check=False)
    assert ran.stdout.split() == ["65534", "True", "False"], ran.stderr


def test_the_key_lies_in_no_file(private: DaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with open_pool(ClusterParams(kind="local", workers=1)) as pool:
        assert list(run_all(pool, behave, [1])) == [(0, 2)]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
        assert "PRIVATE KEY" not in str(psutil.Process(dict(run_all(pool, pid, [1]))[0]).environ())


def test_what_workers_write_lies_where_no_other_user_can_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's own folder is there already, as somebody else may have made it for all: it is left alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    (tmp_path / "dask-scratch-space").mkdir()
    (tmp_path / "dask-scratch-space").chmod(0o777)
    for stated in (None, tmp_path / "elsewhere"):
        options = {} if stated is None else {"local_directory": str(stated)}
        with open_pool(ClusterParams(kind="local", workers=1, options=options)) as pool:
            assert isinstance(pool, DaskPool)
            assert list(run_all(pool, behave, [1])) == [(0, 2)]
            found = [Path(each["local_directory"]) for each in pool.client.scheduler_info()["workers"].values()]
            found += [Path(pool.client.cluster.scheduler.local_directory)]
            found += [Path(pool.client.cluster.workers[0].local_directory)]  # a nanny
            [own] = (stated or tmp_path).glob("facemill-*")
            for folder in found:
                assert folder.is_relative_to(own)
                while folder != own.parent:
                    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
                    folder = folder.parent
            assert str(tmp_path / "dask-scratch-space") not in sys.path
    assert not list((tmp_path / "dask-scratch-space").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_scratch_folder_that_somebody_else_has_made_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs = tmp_path / f"facemill-{os.getuid()}-dask-scratch-space"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with open_pool(ClusterParams(kind="local", workers=1)) as pool:
        assert list(run_all(pool, behave, [1])) == [(0, 2)]
    assert not list(theirs.iterdir())


def test_a_dashboard_listens_where_it_was_asked_for_and_only_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    params = ClusterParams(kind="local", workers=1, options={"dashboard_address": f"127.0.0.1:{port}"})
    with open_pool(params) as pool:
        assert list(run_all(pool, behave, [1])) == [(0, 2)]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert b"200" in said(plain)


def test_options_that_no_local_cluster_takes_are_an_error() -> None:
    params = ClusterParams(kind="local", workers=1, options={"colour": "red"})
    with open_pool(params) as pool, pytest.raises(FacemillError, match="unexpected keyword argument 'colour'"):
        list(run_all(pool, behave, [1]))


# --- clusters elsewhere


def authority(folder: Path) -> ClusterTls:
    """A certificate authority and a certificate that it signed, as a site would have them."""
    folder.mkdir()
    now = datetime.now(UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "us")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in keys}
    for name in keys:
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .sign(keys["ca"], hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = keys["us"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    paths = {"ca_file": folder / "ca.pem", "cert": folder / "us.pem", "key": folder / "key.pem"}
    return ClusterTls.model_validate({name: str(path) for name, path in paths.items()})


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ClusterTls, list[Any]]]:
    """A scheduler and a worker that somebody started on the command line, with certificates of the site."""
    folder = tmp_path_factory.mktemp("site")
    tls = authority(folder / "tls")
    files = ("--tls-ca-file", tls.ca_file, "--tls-cert", tls.cert, "--tls-key", tls.key)
    address_file = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.getcwd()])}
    commands = [
        ("scheduler", "--host", "tls://127.0.0.1:0", "--dashboard-address", "127.0.0.1:0"),
        ("worker", "--nthreads", "1", "--no-dashboard"),
    ]
    started = []
    for verb, *options in commands:
        where = ("--scheduler-file", str(address_file))
        command = [sys.executable, "-m", f"distributed.cli.dask_{verb}", *options, *where, *files]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        end = time.monotonic() + 60
        while not address_file.exists() and time.monotonic() < end:
            time.sleep(0.1)
    yield json.loads(address_file.read_text())["address"], tls, started
    for process in reversed(started):
        process.terminate()
        process.wait(30)


def test_a_cluster_elsewhere_is_reached_with_the_certificates_of_params(elsewhere: tuple[str, ClusterTls, Any]) -> None:
    address, tls, _ = elsewhere
    assert address.startswith("tls://")
    with open_pool(ClusterParams(kind="address", address=address, tls=tls)) as pool:
        assert dict(run_all(pool, behave, [1, "raise", 3]))[2] == 6


def test_a_cluster_elsewhere_refuses_other_certificates(elsewhere: tuple[str, ClusterTls, Any], tmp_path: Path) -> None:
    other = authority(tmp_path / "other")
    params = ClusterParams(kind="address", address=elsewhere[0], tls=other, start_timeout_s=5)
    with open_pool(params) as pool, pytest.raises(FacemillError, match="no scheduler or no worker at tls://"):
        list(run_all(pool, behave, [1]))


def test_the_scheduler_that_goes_away_is_an_error_for_a_person(elsewhere: tuple[str, ClusterTls, list[Any]]) -> None:
    """The last test of this cluster: it kills it."""
    address, tls, processes = elsewhere
    found = []
    with open_pool(ClusterParams(kind="address", address=address, tls=tls)) as pool:
        results = run_all(pool, behave, range(10_000))
        found += [next(results) for _ in range(3)]
        processes[0].kill()
        with pytest.raises(FacemillError, match="the connection to the scheduler was lost"):
            found += list(results)
    assert dict(found) == {index: 2 * index for index, _ in found}


def test_a_cluster_class_gets_the_certificates_of_params(tmp_path: Path) -> None:
    tls = authority(tmp_path / "tls")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    params = ClusterParams(kind="class", cluster_class="distributed.LocalCluster", options=options, tls=tls)
    with open_pool(params) as pool:
        assert isinstance(pool, DaskPool)
        assert list(run_all(pool, behave, [1])) == [(0, 2)]
        assert scheduler(pool).startswith("tls://")
        assert refused(scheduler(pool), None)
        assert not refused(scheduler(pool), stated_security(tls))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "address", "address": "tls://host:8786"}, "belong together"),
        ({"kind": "address", "address": "tcp://host:8786", "tls": "here"}, "belong together"),
        ({"kind": "local", "tls": "here"}, "makes its own"),
        ({"kind": "address", "address": "tls://host:8786", "tls": "relative"}, "is a relative path"),
    ],
)
def test_certificates_and_addresses_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    paths = {"here": "/ca.pem", "relative": "ca.pem"}
    if "tls" in values:
        values = values | {"tls": dict.fromkeys(("ca_file", "cert", "key"), paths[values["tls"]])}
    with pytest.raises(ValueError, match=message):
        ClusterParams.model_validate(values)


def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    tls = authority(tmp_path / "tls")
    with pytest.raises(FacemillError, match=r"tls\.key: .*gone\.pem is no file"):
        stated_security(tls.model_copy(update={"key": str(tmp_path / "gone.pem")}))
    (tmp_path / "letter.pem").write_text("Dear Sir or Madam,")
    with pytest.raises(FacemillError, match="a certificate and its key as PEM"):
        stated_security(tls.model_copy(update={"cert": str(tmp_path / "letter.pem")}))
    other = authority(tmp_path / "other")
    with pytest.raises(FacemillError, match="a certificate and its key as PEM"):
        stated_security(tls.model_copy(update={"key": other.key}))
