"""What collecting from the network costs: pictures a second, a long list's memory, one dead host among many.

    python benchmarks/collect.py [--pictures 1000] [--rows 100000] [--hosts 1000]

A server on loopback, a process of its own, sends a photo of 480×480 px after `--wait` seconds, as a host far away
would. Each address of 127.0.0.0/8 is a host for facemill. *rate*: `collect` as `facemill stage` runs it, inventory left
out, with so many hosts asked at once, where the first run also makes the parts of the table. *list*: the same
pictures' addresses in a CSV of many rows, all of which answer 404; peak memory of the process that plans, with the
workers beside it. *dead*: all hosts have one picture; then one more has ten and takes connections without answering.
"""

from __future__ import annotations

import argparse
import http.server
import multiprocessing
import os
import resource
import socket
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from facemill.pictures import encode_jpeg
from tasks import collect, inventory
from tasks.params import parse_params

RIGHTS = {"basis": "own", "evidence": "drawn by this benchmark"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--wait", type=float, default=0.1, help="seconds before the server answers")
    arguments = parser.parse_args()
    ports: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(ports, arguments.wait), daemon=True)
    server.start()
    port = ports.get()
    for at_once in (1, 8, 64):
        hosts = [f"127.0.{number // 200}.{number % 200 + 1}" for number in range(64)]
        urls = [f"http://{hosts[n % 64]}:{port}/{n}.jpg" for n in range(arguments.pictures)]
        run(f"{at_once} at once, {len(urls)} pictures of 64 hosts", urls, at_once)
    hosts = [f"127.1.{number // 200}.{number % 200 + 1}" for number in range(arguments.hosts)]
    alive = [f"http://{host}:{port}/1.jpg" for host in hosts]
    run(f"{len(alive)} hosts", alive, 16)
    with silent() as dead:
        run("and a dead one with ten pictures", [f"http://127.2.0.1:{dead}/{n}.jpg" for n in range(10)] + alive, 16)
    for rows in (arguments.rows // 100, arguments.rows // 10, arguments.rows):
        run(f"a list of {rows} rows that answer 404", [f"http://127.0.0.1:{port}/gone/{n}" for n in range(rows)], 16)
    server.terminate()


def run(what: str, urls: list[str], at_once: int) -> None:
    """Collects the addresses into a project of its own, in a process of its own, and prints what it took."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        seconds, counts, peak, workers = process.submit(collected, urls, at_once).result(1800)
    rate = len(urls) / seconds
    print(
        f"\n{what}: {seconds:.1f} s, {rate:.0f} a second, {counts}, peak {peak} MiB, a worker {workers} MiB", flush=True
    )


def collected(urls: list[str], at_once: int) -> tuple[float, dict[str, int], int, int]:
    """Seconds, rows by state, and the peaks of this process and of its largest child, in MiB."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "archive").mkdir()
        (root / "list.txt").write_text("\n".join(urls))
        (root / "reference.jpg").write_bytes(picture())
        (root / "archive" / "none.mp4").write_bytes(b"no video")
        listed = {"kind": "urls", "path": "list.txt", "allow_private_addresses": True}
        drawn = {"kind": "sample", "person": "collins", "pictures": 4}
        params = parse_params(
            {
                "identities": {
                    "anna": {"rights": RIGHTS, "references": ["reference.jpg"], "sources": [listed]},
                    "bea": {"rights": RIGHTS, "references": ["reference.jpg"], "sources": [drawn]},
                },
                "archive": {"kind": "folder", "path": "archive"},
                "collect": {"failure_limit": 1.0, "hosts_at_once": at_once},
                "convert": {"becomes": {"anna": "bea"}},
            }
        )
        inventory.run(params, root)
        start = time.monotonic()
        totals = collect.run(params, root)
        seconds = time.monotonic() - start
    own, child = (resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return seconds, {str(state): sum(reasons.values()) for state, reasons in totals.counts.items()}, own, child


def picture() -> bytes:
    """A photo's size and weight: smooth, with some noise; 60 KB."""
    noise = np.random.default_rng(0).integers(0, 40, (480, 480, 3))
    ramp = np.linspace(0, 200, 480)[:, None, None]
    return encode_jpeg((noise + ramp).clip(0, 255).astype(np.uint8), 80)


def serve(ports: Any, wait_s: float) -> None:
    """Answers /N.jpg with the photo, N behind its end to make each another one, and everything else with 404."""
    photo = picture()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = photo + self.path.encode() if self.path.endswith(".jpg") else b""
            if body:
                time.sleep(wait_s)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *parts: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

    server = Server(("0.0.0.0", 0), Handler)
    ports.put(server.server_port)
    server.serve_forever()


class silent:
    """A port that takes connections and never answers."""

    def __enter__(self) -> int:
        self._socket = socket.create_server(("0.0.0.0", 0), backlog=128)
        self._held: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()
        return int(self._socket.getsockname()[1])

    def _take(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return

    def __exit__(self, *problem: object) -> None:
        self._socket.close()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
