"""Who may talk to a cluster: certificates that are made for one run, or those that params.yaml names."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from facemill.errors import FacemillError
from tasks.paths import place

if TYPE_CHECKING:
    from tasks.params import ClusterTls

_VALID = datetime.timedelta(days=3650)  # longer than any run; it dies with the processes anyway
_CLOCKS = datetime.timedelta(days=2)  # a clock may be set back meanwhile


def one_time_security() -> Security:
    """A new key and a certificate that only it fits; whoever has no copy of them is refused, as client, worker or
    scheduler. They stay in the memory of the cluster's processes; Dask hands them to OpenSSL in a folder that only we
    may open, for the moment of reading.

    As `Security.temporary`, with an elliptic curve, whose key takes a millisecond where RSA's took 65.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "facemill")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return _everywhere(public, public, secret)


def stated_security(tls: ClusterTls) -> Security:
    """The certificates that params.yaml names.

    Raises:
        FacemillError: a file that is not there, or that is no PEM certificate or key.
    """
    files = [place(path, Path()) for path in (tls.ca_file, tls.cert, tls.key)]
    for key, file in zip(("ca_file", "cert", "key"), files, strict=True):
        if not file.is_file():
            raise FacemillError(f"tls.{key}: {file} is no file")
    security = _everywhere(*map(str, files))
    try:
        security.get_connection_args("client")
    except OSError as error:  # SSLError is one
        raise FacemillError(
            f"tls: {files[0]}, {files[1]} and {files[2]} are not a certificate authority, a certificate and its key as "
            f"PEM without a password ({error})"
        ) from error
    return security


def _everywhere(authority: str, certificate: str, key: str) -> Security:
    """The same certificate for each side; paths or the PEM texts themselves, as Dask takes both."""
    sides = ("client", "scheduler", "worker")
    pairs = {f"tls_{side}_{part}": text for side in sides for part, text in (("cert", certificate), ("key", key))}
    return Security(require_encryption=True, tls_ca_file=authority, **pairs)
