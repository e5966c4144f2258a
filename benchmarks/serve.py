"""`lichen serve` with 32 submitters over HTTP on this machine: acknowledged, durable records per second, and how long each waits.

Interleaved, round by round, so that all meet the same machine:

* ``serve``: a `lichen serve` process; 32 connections, each submits one signed record after the other and waits for its
  acknowledgement (status 201, after the commit);
* ``echo``: the limit of the HTTP side: starlette under the same uvicorn, which answers the same requests with as many bytes
  as an acknowledgement has, and neither checks nor stores anything;
* ``append``: the limit of the ledger side: `Ledger.append_many` in this process, in batches of 32 and of 1,000.

The submitters share the machine's processors with the server. At the end every acknowledged record is looked up in the ledger.

    python benchmarks/serve.py --rounds 5 --records 250
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import synthetic
from harness import interval, percentile, write_result

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.hashes import sha256
from lichen.crypto.key_file import write_key
from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Subject
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.runs.queries.views import default_views

SUBMITTER_COUNT = 32
ECHO = """\
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

ANSWER = b"x" * int(sys.argv[2])

async def take(request):
    await request.body()
    return Response(ANSWER, status_code=201, media_type="application/json")

app = Starlette(routes=[Route("/records", take, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


class Site:
    """A ledger with as many members as there are submitters."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log_key = SigningKey.generate()
        self.keys = [SigningKey.generate() for _ in range(SUBMITTER_COUNT)]
        self.rng, self.number = random.Random(7), 0
        self.served = self.make("served")
        write_key(self.served.directory / "log.key", self.log_key)
        self.id_holder = self.served

    def make(self, name: str) -> Ledger:
        genesis = Genesis(
            name="benchmark",
            created_unix_ms=0,
            admins=tuple(Admin(f"member-{place}", key.public) for place, key in enumerate(self.keys)),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing("solo", 1_000, 1_000),
            access="public",
        )
        return Ledger.create(
            self.root / name, genesis, self.log_key, default_contracts(), default_views(), home=self.root
        )

    def entries(self, ledger: Ledger, count: int, submitter: int) -> list[Entry]:
        """Runs as a member signs them, all different."""
        made = []
        for _ in range(count):
            self.number += 1
            subjects = [Subject(f"output/{place}", synthetic.digest("output", self.number, place)) for place in range(2)]  # fmt: skip
            said = synthetic.run_predicate(self.rng, self.number)
            record = ledger.statement("run", subjects, said, member=f"member-{submitter}")
            made.append(Entry.signed(record.to_bytes(), self.keys[submitter]))
        return made


def request_of(entry: bytes) -> bytes:
    head = (
        "POST /records HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/vnd.lichen.entry\r\n"
        f"Content-Length: {len(entry)}\r\n\r\n"
    )
    return head.encode() + entry


async def submit_all(port: int, work: list[list[bytes]]) -> dict[str, Any]:
    """Submit over one connection for each submitter; seconds from the first request to the last answer."""
    seconds: list[float] = []
    statuses: dict[str, int] = {}
    answer_sizes: list[int] = []

    async def one(requests: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            started = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            seconds.append(time.perf_counter() - started)
            status = head.split(b" ", 2)[1].decode()
            statuses[status] = statuses.get(status, 0) + 1
            answer_sizes.append(size)
        writer.close()
        await writer.wait_closed()

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(one, work))
    return {
        "seconds": time.perf_counter() - started, "waits": seconds, "statuses": statuses,
        "cpu_seconds": time.process_time() - cpu, "answer_bytes": max(answer_sizes),
    }  # fmt: skip


def submit(port: int, work: list[list[bytes]], scratch: Path) -> dict[str, Any]:
    """The same in a process of its own, so that server and submitters do not share an interpreter."""
    task = scratch / "work.pickle"
    task.write_bytes(pickle.dumps((port, work)))
    command = [sys.executable, __file__, "--submit", str(task)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def process(command: list[str], home: Path, port: int | None) -> Iterator[tuple[int, int]]:
    """A server; its port and process, when requests are answered. It is told to stop at the end, and must obey."""
    log = home / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "LICHEN_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if port is None and "at http://" in log.read_text():
                port = int(log.read_text().partition("at http://127.0.0.1:")[2].split()[0])
            if port is not None and is_open(port):
                break
            if server.poll() is not None:
                raise SystemExit(f"the server ended:\n{log.read_text()}")
            time.sleep(0.05)
        else:
            raise SystemExit(f"the server did not answer:\n{log.read_text()}")
        assert port is not None
        yield port, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_open(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def append_rate(site: Site, ledger: Ledger, count: int, batch_count: int) -> float:
    """Records per second of `append_many` alone."""
    entries = [entry for place in range(SUBMITTER_COUNT) for entry in site.entries(ledger, count // SUBMITTER_COUNT, place)]  # fmt: skip
    started = time.perf_counter()
    for place in range(0, len(entries), batch_count):
        ledger.append_many(entries[place : place + batch_count])
    return len(entries) / (time.perf_counter() - started)


def measure(root: Path, rounds: int, record_count: int) -> tuple[dict[str, Any], int]:
    site = Site(root)
    alone = site.make("alone")
    site.served.close()
    with Ledger.open(root / "served", default_contracts(), read_only=True) as ledger:
        work = [
            [
                [entry.to_bytes() for entry in site.entries(ledger, record_count, place)]
                for place in range(SUBMITTER_COUNT)
            ]
            for _ in range(rounds + 1)
        ]
    echo_file = root / "echo.py"
    echo_file.write_text(ECHO)
    echo_port = free_port()
    command = [sys.executable, "-m", "lichen", "serve", "--port", "0", "--ledger", str(root / "served"), "--records-per-second", "100000"]  # fmt: skip
    rates: dict[str, list[float]] = {"serve": [], "echo": [], "append_32": [], "append_1000": []}
    waits: dict[str, list[float]] = {"serve": [], "echo": []}
    cpu: dict[str, list[float]] = {"serve": [], "echo": []}
    submitters_cpu: list[float] = []
    statuses: dict[str, int] = {}
    answer_bytes = 100
    with process(command, root, None) as (port, pid):
        for turn, round_work in enumerate(work):
            requests = [[request_of(entry) for entry in entries] for entries in round_work]
            count = SUBMITTER_COUNT * record_count
            before = cpu_seconds(pid)
            served = submit(port, requests, root)
            served["server_cpu_seconds"] = cpu_seconds(pid) - before
            answer_bytes = served["answer_bytes"]
            echo_command = [sys.executable, str(echo_file), str(echo_port), str(answer_bytes)]
            with process(echo_command, root, echo_port) as (_, echo_pid):
                submit(echo_port, [each[:20] for each in requests], root)
                before = cpu_seconds(echo_pid)
                echoed = submit(echo_port, requests, root)
                echoed["server_cpu_seconds"] = cpu_seconds(echo_pid) - before
            for status, number in served["statuses"].items():
                statuses[status] = statuses.get(status, 0) + number
            small = append_rate(site, alone, count // 4, SUBMITTER_COUNT)
            large = append_rate(site, alone, max(count // 2, 1_000), 1_000)
            if turn == 0:
                continue  # the first warms everything up
            for name, told in (("serve", served), ("echo", echoed)):
                rates[name].append(count / told["seconds"])
                waits[name] += told["waits"]
                cpu[name].append(1e3 * told["server_cpu_seconds"] / count)
                submitters_cpu.append(1e3 * told["cpu_seconds"] / count)
            rates["append_32"].append(small)
            rates["append_1000"].append(large)
    alone.close()
    missing = missing_count(root / "served", work)
    figures = {
        "acknowledged_records_per_second": interval(rates["serve"]),
        "wait_ms_p50": 1e3 * percentile(waits["serve"], 0.50),
        "wait_ms_p99": 1e3 * percentile(waits["serve"], 0.99),
        "wait_ms_max": 1e3 * max(waits["serve"]),
        "echo_requests_per_second": interval(rates["echo"]),
        "echo_wait_ms_p99": 1e3 * percentile(waits["echo"], 0.99),
        "append_many_of_32_records_per_second": interval(rates["append_32"]),
        "append_many_of_1000_records_per_second": interval(rates["append_1000"]),
        "share_of_echo": interval([one / other for one, other in zip(rates["serve"], rates["echo"], strict=True)]),
        "share_of_both_in_turn": interval(
            [
                one * (1 / other + 1 / third)
                for one, other, third in zip(rates["serve"], rates["echo"], rates["append_32"], strict=True)
            ]
        ),
        "submitters": SUBMITTER_COUNT,
        "server_cpu_ms_per_record": interval(cpu["serve"]),
        "echo_cpu_ms_per_request": interval(cpu["echo"]),
        "submitter_cpu_ms_per_request": interval(submitters_cpu),
        "record_bytes": sum(len(entry) for entries in work[0] for entry in entries)
        / (SUBMITTER_COUNT * record_count),
        "statuses": statuses,
        "acknowledged_but_missing": missing,
    }  # fmt: skip
    return figures, missing


def missing_count(directory: Path, work: list[list[list[bytes]]]) -> int:
    """Acknowledged records that the ledger does not have."""
    with Ledger.open(directory, default_contracts(), read_only=True) as ledger:
        return sum(
            ledger.find_payload(sha256(Entry.from_bytes(entry).payload)) is None
            for round_work in work
            for entries in round_work
            for entry in entries
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=250, help="of each submitter, in each round")
    parser.add_argument("--submit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.submit:
        port, work = pickle.loads(Path(options.submit).read_bytes())  # written by this program
        print(json.dumps(asyncio.run(submit_all(port, work))))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("LICHEN_BENCH_DIR")) as name:
        figures, missing = measure(Path(name), options.rounds, options.records)
    write_result(
        "serve",
        figures,
        bars={
            "acknowledged_records_per_second": ">= 1500 on 2 cores",
            "wait_ms_p99": "< 100",
            "acknowledged_but_missing": "0",
        },
        notes=[
            "submitters and server share the machine; one record in each request, one request at a time on each connection",
            "echo: starlette under the same uvicorn, same requests, as many bytes in the answer, nothing checked or stored",
            "share_of_both_in_turn: against a server that did the HTTP of echo and the appending of append_many one after the other",
        ],
    )
    if missing:
        raise SystemExit(f"{missing} acknowledged records are missing")


if __name__ == "__main__":
    main()
