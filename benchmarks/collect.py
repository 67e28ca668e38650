"""What fetching from the network costs: pictures a second, a long list's memory, one dead host among many.

    python benchmarks/collect.py [--pictures 640] [--rows 100000] [--hosts 1000] [--wait 0.1]

A server on loopback, a process of its own, sends a photo of 480×480 px after `--wait` seconds, as a host far away
would; each address of 127.0.0.0/8 is a host for facemill. Pictures are fetched as a worker of `collect` fetches them,
opt-outs looked for, without Dask, decoding and the table.

*rate*: pictures of 64 hosts with so many hosts asked at once. *dead*: a picture of each host; then one more host has
ten, and takes connections without answering. *list*: peak memory of a process that reads a list of so many rows, puts
them together by host and deals them out to workers, and of one that only starts.
"""

from __future__ import annotations

import argparse
import http.server
import multiprocessing
import pickle
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from facemill.batches import interleaved
from facemill.pictures import encode_jpeg
from facemill.sources import Item, Surroundings, Unit, fetch, find
from facemill.sources.urls import UrlsSource
from tasks.collecting.hosts import UnitsByHost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=640)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--wait", type=float, default=0.1, help="seconds before the server answers")
    arguments = parser.parse_args()
    ports: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(ports, arguments.wait), daemon=True)
    server.start()
    port = ports.get()
    for at_once in (1, 8, 64):
        hosts = [f"127.0.{at_once}.{number + 1}" for number in range(64)]
        urls = [f"http://{hosts[n % 64]}:{port}/{n}.jpg" for n in range(arguments.pictures)]
        fetched(f"{at_once} at once", urls, at_once)
    for network in (1, 2):
        alive = [f"http://127.{network}.{n // 200}.{n % 200 + 1}:{port}/1.jpg" for n in range(arguments.hosts)]
        with silent() as dead:
            extra = [f"http://127.9.0.1:{dead}/{n}.jpg" for n in range(10)] if network == 2 else []
            fetched(f"{len(alive)} hosts{' and a dead one' if extra else ''}", extra + alive, 16)
    server.terminate()
    for rows in (0, arguments.rows // 100, arguments.rows // 10, arguments.rows):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            print(f"a list of {rows} rows: peak {process.submit(listed, rows).result():.1f} MiB", flush=True)


def fetched(what: str, urls: Sequence[str], at_once: int) -> None:
    """Fetches the addresses, each host's one after another, and prints what it took."""
    by_host: dict[str, list[Unit]] = {}
    for unit in units(urls):
        by_host.setdefault(unit.host, []).append(unit)
    start, busy = time.monotonic(), time.process_time()
    living, ended = 0, 0.0
    for item in interleaved(items, by_host.values(), at_once):
        if item.data is not None:
            living, ended = living + 1, time.monotonic() - start
    seconds, busy = time.monotonic() - start, time.process_time() - busy
    print(
        f"{what}: {living} of {len(urls)} pictures, the last after {ended:.1f} s, {living / ended:.0f} a second; "
        f"all over after {seconds:.1f} s, {busy:.1f} s busy",
        flush=True,
    )


def units(urls: Iterable[str]) -> Sequence[Unit]:
    """What a list of these addresses is found to consist of."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "list.txt"
        with path.open("w") as stream:
            stream.writelines(f"{url}\n" for url in urls)
        [listed] = UrlsSource(path=str(path), allow_private_addresses=True).plan("anna", "sample", Surroundings())
        return find(listed)


def items(host: Sequence[Unit]) -> Iterator[Item]:
    for unit in host:
        yield from fetch(unit)


def listed(rows: int) -> float:
    """Peak memory in MiB of this process with so many rows, put together by host and dealt out as to workers."""
    by_host = UnitsByHost()
    by_host.add(units(f"https://host{n % 1000}.example/pictures/{n}.jpg" for n in range(rows)))
    jobs = 16  # as many as `collect` makes of 1,000 hosts
    dealt = (pickle.loads(pickle.dumps(by_host.share(number, jobs))) for number in range(jobs))
    assert sum(1 for hosts in dealt for host in hosts for pieces in host for _ in pieces) == rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def photo() -> bytes:
    """A photo's size and weight: smooth, with some noise."""
    noise = np.random.default_rng(0).integers(0, 40, (480, 480, 3))
    ramp = np.linspace(0, 200, 480)[:, None, None]
    return encode_jpeg((noise + ramp).clip(0, 255).astype(np.uint8), 80)


def serve(ports: Any, wait_s: float) -> None:
    """Answers every address that ends in .jpg with the photo, and others with 404, at once."""
    picture = photo()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = picture if self.path.endswith(".jpg") else b""
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


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    held = []

    def take() -> None:
        while True:
            try:
                held.append(server.accept()[0])
            except OSError:
                return

    with socket.create_server(("0.0.0.0", 0), backlog=128) as server:
        threading.Thread(target=take, daemon=True).start()
        yield int(server.getsockname()[1])


if __name__ == "__main__":
    main()
