"""The server's small parts, each with a clock that the test turns."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.errors import (
    EncodingError,
    KeyFileError,
    NotFoundError,
    Rejected,
    StorageError,
    UsageError,
    VerificationError,
)
from lichen.ledger.ports import Appended
from lichen.net.server.committer import Accepted, Committer
from lichen.net.server.limits import CALLER_COUNT_MAX, Buckets
from lichen.net.server.metrics import Histogram, Metrics
from lichen.net.server.problem import Problem, problem_of
from lichen.net.server.settings import ServerSettings
from lichen.net.signed_request import NONCE_COUNT_MAX, NonceMemory, SignedRequest, sign_request


class Clock:
    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_bucket_refills_with_time_and_holds_no_more_than_its_burst() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3.0, clock)
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(Problem) as refused:
        buckets.take("a")
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "1"
    buckets.take("b")
    clock.now += 0.5
    buckets.take("a")
    clock.now += 1_000
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(Problem):
        buckets.take("a")


def test_tokens_are_taken_all_or_none() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 8.0, clock)
    buckets.take("a", 6)
    with pytest.raises(Problem) as refused:
        buckets.take("a", 6)
    assert refused.value.headers["Retry-After"] == "2"
    buckets.take("a", 2)
    clock.now += 3
    buckets.take("a", 6)


def test_buckets_of_many_callers_take_bounded_memory() -> None:
    buckets = Buckets(1.0, 1.0, Clock())
    for caller in range(CALLER_COUNT_MAX + 100):
        buckets.take(caller)
    assert len(buckets._levels) == CALLER_COUNT_MAX


def signed(key: SigningKey, created: int, nonce: bytes) -> SignedRequest:
    headers = sign_request(key, "a" * 64, "GET", "/checkpoint?x=1", created=created, nonce=nonce)
    return SignedRequest.parse(headers["Signature-Input"], headers["Signature"])


def test_a_signed_request_holds_for_itself_and_for_nothing_else() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    request = signed(key, 1_000, b"n" * 16)
    request.verify(key.public, "a" * 64, "GET", "/checkpoint?x=1")
    for wrong in (
        (other.public, "a" * 64, "GET", "/checkpoint?x=1"),
        (key.public, "b" * 64, "GET", "/checkpoint?x=1"),
        (key.public, "a" * 64, "PUT", "/checkpoint?x=1"),
        (key.public, "a" * 64, "GET", "/checkpoint"),
        (key.public, "a" * 64, "GET", "/checkpoint?x=2"),
    ):
        with pytest.raises(VerificationError):
            request.verify(*wrong)


def test_headers_have_one_spelling() -> None:
    headers = sign_request(SigningKey.generate(), "a" * 64, "GET", "/", created=1, nonce=b"n" * 16)
    said, proof = headers["Signature-Input"], headers["Signature"]
    for wrong in (
        (said + " ", proof),
        (said.replace("created=1", "created=x"), proof),
        (said.replace("ed25519", "rsa"), proof),
        (said.replace('"@method" ', ""), proof),
        (said, proof[:-1]),
        (said, proof.replace("lichen=", "sig1=")),
        ("", ""),
    ):
        with pytest.raises(EncodingError):
            SignedRequest.parse(*wrong)


def test_a_nonce_counts_once_and_is_forgotten_when_its_time_is_over() -> None:
    clock, key = Clock(), SigningKey.generate()
    memory = NonceMemory(clock)
    request = signed(key, 1_000, b"n" * 16)
    assert memory.is_timely(1_000)
    assert memory.take(request)
    assert not memory.take(request)
    assert not memory.is_timely(999)  # before this memory began
    clock.now = 1_061
    assert not memory.is_timely(1_000)
    memory._seen = {bytes([1]) * 4 + place.to_bytes(4, "big"): 2_000 for place in range(NONCE_COUNT_MAX)}
    with pytest.raises(OverflowError):
        memory.take(signed(key, 1_061, b"m" * 16))
    clock.now = 2_001
    assert memory.take(signed(key, 2_001, b"m" * 16))
    assert len(memory._seen) == 1


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1.0, 2.5))
    for value in (0.5, 1.0, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.lines("x") == [
        'x_bucket{le="1"} 2', 'x_bucket{le="2.5"} 3', 'x_bucket{le="+Inf"} 4', "x_sum 12.5", "x_count 4",
    ]  # fmt: skip


def test_the_exposition_has_one_help_and_one_type_for_each_family() -> None:
    metrics = Metrics()
    metrics.answered("GET", '/a"\n\\', 200, 0.01)
    metrics.gauges["lichen_test"] = ("A test.", lambda: 1.5)
    lines = metrics.exposition().splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert families == [line.split()[2] for line in lines if line.startswith("# HELP ")]
    assert len(set(families)) == len(families)
    assert 'lichen_http_requests_total{method="GET",route="/a\\"\\n\\\\",status="200"} 1' in lines
    assert "lichen_test 1.5" in lines
    for line in lines:
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            float(value)
            assert name.startswith("lichen_")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("members.not-admitted", "no"), 403),
        (Rejected("registry.schema", "no"), 422),
        (NotFoundError("no"), 404),
        (UsageError("no"), 400),
        (EncodingError("no"), 400),
        (VerificationError("no"), 422),
        (StorageError("no"), 503),
    ],
)
def test_every_error_has_its_status(error, status: int) -> None:
    problem = problem_of(error)
    assert problem.status == status
    told = json.loads(problem.body())
    assert told["status"] == status
    assert told["type"].startswith("urn:lichen:problem:")


@pytest.mark.parametrize("name", list(ServerSettings.__dataclass_fields__))
def test_no_bound_is_zero(name: str) -> None:
    with pytest.raises(UsageError):
        ServerSettings(**{name: 0})


class FakeLedger:
    """Stands for a ledger whose disk the test controls."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.failure: Exception | None = None
        self.batches: list[int] = []
        self.sealed_at: list[int] = []
        self.size = self.sealed_size = 0
        self.keeps_blocks_open = False

    def append_many(self, entries, *, seal: bool):
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(entries))
        start = self.size
        self.size = start + len(entries)
        if seal or not self.keeps_blocks_open:
            self.sealed_size = self.size
            self.sealed_at.append(self.size)
        return [Appended(start + place, bytes(32)) for place in range(len(entries))]

    def seal(self, *, force: bool) -> None:
        if force:
            self.sealed_size = self.size
            self.sealed_at.append(self.size)


def entry(number: int) -> Entry:
    return Entry(bytes(16), bytes(64), b"%d" % number)


def test_what_comes_while_the_disk_is_busy_shares_the_next_commit_and_too_much_is_turned_away() -> None:
    ledger = FakeLedger()

    async def scenario() -> list[Accepted]:
        committer = Committer(ledger, 5, asyncio.get_running_loop())
        first = committer.submit(entry(0), wants_receipt=False)
        while committer.waiting_count:
            await asyncio.sleep(0.001)
        rest = [committer.submit(entry(number), wants_receipt=False) for number in range(1, 6)]
        with pytest.raises(Problem) as refused:
            committer.submit(entry(6), wants_receipt=False)
        assert (refused.value.status, refused.value.code) == (503, "busy")
        ledger.gate.set()
        accepted = await asyncio.gather(first, *rest)
        await asyncio.to_thread(committer.close)
        with pytest.raises(Problem) as late:
            committer.submit(entry(7), wants_receipt=False)
        assert late.value.code == "shutting-down"
        return accepted

    accepted = asyncio.run(scenario())
    assert [each.index for each in accepted] == list(range(6))
    assert ledger.batches == [1, 5]


def test_when_the_disk_fails_nobody_is_acknowledged_and_the_next_is_served() -> None:
    ledger = FakeLedger()
    ledger.gate.set()
    ledger.failure = StorageError("disk full")

    async def scenario() -> None:
        committer = Committer(ledger, 5, asyncio.get_running_loop())
        with pytest.raises(Problem) as failed:
            await committer.submit(entry(0), wants_receipt=False)
        assert (failed.value.status, failed.value.code) == (503, "storage")
        ledger.failure = RuntimeError("a mistake")
        with pytest.raises(Problem) as failed:
            await committer.submit(entry(1), wants_receipt=False)
        assert failed.value.status == 500
        ledger.failure = None
        assert (await committer.submit(entry(2), wants_receipt=False)).index == 0
        await asyncio.to_thread(committer.close)

    asyncio.run(scenario())


def test_a_block_is_closed_before_it_grows_so_large_that_everybody_waits_for_it() -> None:
    ledger = FakeLedger()
    ledger.gate.set()
    ledger.keeps_blocks_open = True

    async def scenario() -> None:
        committer = Committer(ledger, 100, asyncio.get_running_loop(), block_count_max=4)
        for number in range(10):
            await committer.submit(entry(number), wants_receipt=False)
        await asyncio.to_thread(committer.close)

    asyncio.run(scenario())
    assert ledger.sealed_at == [4, 8, 10]


class LogWithNewKey(FakeLedger):
    """Stands for a ledger whose log has another key than it was opened with."""

    def append_many(self, entries, *, seal: bool):
        raise KeyFileError("the log has a new key")


def test_while_the_logs_new_key_is_not_to_be_had_nothing_is_taken_and_then_all_goes_on() -> None:
    renewed, keys = FakeLedger(), list[str]()
    renewed.gate.set()

    def reopen() -> FakeLedger:
        if not keys:
            raise KeyFileError("the log's key of now is not here", remedy="Put it there.")
        return renewed

    async def scenario() -> None:
        committer = Committer(LogWithNewKey(), 5, asyncio.get_running_loop(), reopen=reopen)
        for _ in range(2):
            with pytest.raises(Problem) as refused:
                await committer.submit(entry(0), wants_receipt=False)
            assert (refused.value.status, refused.value.code) == (503, "log-key")
            assert committer.lacks_log_key
        keys.append("new")
        assert (await committer.submit(entry(0), wants_receipt=False)).index == 0
        assert not committer.lacks_log_key
        await asyncio.to_thread(committer.close)

    asyncio.run(scenario())
    assert renewed.batches == [1]


def test_what_came_together_is_queued_together_or_not_at_all() -> None:
    ledger = FakeLedger()
    ledger.keeps_blocks_open = True

    async def scenario() -> None:
        committer = Committer(ledger, 5, asyncio.get_running_loop())

        def waiting() -> int:
            return committer.waiting_count

        first = committer.submit(entry(0), wants_receipt=False)
        while waiting():
            await asyncio.sleep(0.001)
        assert committer.submit_many([], wants_seal=True) == []
        answers = committer.submit_many([entry(number) for number in range(1, 4)], wants_seal=True)
        with pytest.raises(Problem):
            committer.submit_many([entry(number) for number in range(4, 7)], wants_seal=True)
        assert waiting() == 3
        ledger.gate.set()
        assert [each.index for each in await asyncio.gather(first, *answers)] == [0, 1, 2, 3]
        await asyncio.to_thread(committer.close)

    asyncio.run(scenario())
    assert ledger.batches == [1, 3]
    assert ledger.sealed_at == [4]
