"""A real server on a port of this machine: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from lichen.content.unixfs import hash_bytes
from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.ledger.audit import audit
from lichen.ledger.checkpoint import open_checkpoint
from lichen.ledger.proof import consistency_proof, verify_consistency
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.replica import is_seal
from lichen.ledger.tree import leaf_hash, root_of, subtree_reader
from lichen.net.server.settings import ServerSettings
from lichen.net.signed_request import sign_request
from lichen.net.tile_paths import TilePath, unpack_bundle

from .conftest import ENTRY_TYPE, Server, Team, drip, in_thread, problem

Start = Callable[..., Server]


def reader_key(team: Team) -> SigningKey | None:
    return team.keys["bob"] if team.access == "private" else None


def test_a_submitted_record_comes_back_with_a_receipt_that_verifies(team: Team, serve: Start) -> None:
    server, entry = serve(team), team.entry("bob")
    answer = server.submit(entry, receipt=True)
    assert answer.status == 201
    told = answer.json()
    verified = verify_receipt(Receipt.parse(told["receipt"]), team.log_key.public, f"lichen/{team.id}")
    assert verified.entry == entry
    assert verified.index == told["index"] == 2
    assert told["payload_sha256"] == hashlib.sha256(entry.payload).hexdigest()
    assert answer.headers["location"] == "/receipt/2"
    assert server.get("/receipt/2", key=reader_key(team)).text == told["receipt"]


def test_the_same_payload_again_gets_the_same_answer(public_team: Team, serve: Start) -> None:
    server, entry = serve(public_team), public_team.entry()
    first = server.submit(entry, receipt=True)
    for _ in range(3):
        server.submit(public_team.entry(), receipt=True)
    again = server.submit(entry, receipt=True)
    assert (first.status, again.status) == (201, 200)
    assert again.json() == first.json()
    envelope = server.ask(
        "POST",
        "/records?receipt=yes",
        entry.to_dsse(),
        {"Content-Type": "application/vnd.dsse.envelope.v1+json"},
    )
    assert envelope.json() == first.json()


def test_the_log_is_read_as_tiles_by_a_program_that_knows_only_tlog_tiles(team: Team, serve: Start) -> None:
    server, key = serve(team), reader_key(team)
    entries = [team.entry() for _ in range(300)]
    first = open_checkpoint(server.get("/checkpoint", key=key).text, f"lichen/{team.id}", team.log_key.public)
    with contextlib.closing(server.connect()) as connection:
        for entry in entries[:-1]:
            assert server.submit(entry, connection=connection).status == 201
        last = server.submit(entries[-1], receipt=True, connection=connection).json()
    size = last["index"] + 2
    checkpoint = open_checkpoint(
        Receipt.parse(last["receipt"]).checkpoint, f"lichen/{team.id}", team.log_key.public
    )
    assert checkpoint.tree_size == size == 304  # with the seal that closes the full block on the way

    def fetch(path: TilePath) -> bytes:
        answer = server.get(f"/tile/{path.to_text()}", key=key)
        assert answer.status == 200, answer.text
        is_full = path.width == 256
        assert ("immutable" in answer.headers["cache-control"]) is is_full
        assert answer.headers["etag"]
        return answer.body

    whole = unpack_bundle(fetch(TilePath(None, 0)), 256) + unpack_bundle(fetch(TilePath(None, 1, 48)), 48)
    leaves = [leaf_hash(entry) for entry in whole]
    assert root_of(leaves) == checkpoint.root
    assert b"".join(leaves) == fetch(TilePath(0, 0)) + fetch(TilePath(0, 1, 48))
    assert [entry.to_bytes() for entry in entries] == [data for data in whole[2:] if not is_seal(data)]

    def read_hashes(level: int, start: int, count: int) -> bytes:
        number, offset = divmod(start, 256)
        width = min(256, (size >> (8 * level)) - number * 256)
        return fetch(TilePath(level, number, width))[offset * 32 : (offset + count) * 32]

    proof = consistency_proof(first.tree_size, size, subtree_reader(read_hashes))
    verify_consistency(first.tree_size, size, first.root, checkpoint.root, proof)
    assert server.get("/tile/0/001.p/49", key=key).status == 404
    assert server.get("/tile/0/002", key=key).status == 404


def test_what_has_not_changed_is_not_sent_again(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    for path in ("/checkpoint", "/tile/0/000.p/2", "/entry/0", "/receipt/0", "/state-at/2/members/00", "/"):
        first = server.get(path)
        again = server.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (first.status, again.status, again.body) == (200, 304, b""), path
    assert (
        server.get("/checkpoint", headers={"If-None-Match": '"something-else"'}).body
        == server.get("/checkpoint").body
    )


def test_checkpoints_are_published_at_most_once_a_second(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    seen: list[str] = []
    started = time.monotonic()
    while time.monotonic() - started < 1.5 or len(seen) < 10:
        assert server.submit(public_team.entry(), receipt=True).status == 201
        seen.append(server.get("/checkpoint").text)
    elapsed = time.monotonic() - started
    assert len(set(seen)) <= elapsed + 2
    assert len(seen) > len(set(seen))


def test_state_proofs_say_yes_and_no(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    accepted = server.submit(public_team.entry(), receipt=True).json()
    size = accepted["index"] + 2
    there = server.get(f"/state-at/{size}/members/{b'member/alice'.hex()}")
    absent = server.get(f"/state-at/{size}/members/{b'member/mallory'.hex()}")
    for answer, is_there in ((there, True), (absent, False)):
        assert "immutable" in answer.headers["cache-control"]
        verified = verify_receipt(
            Receipt.parse(answer.text), public_team.log_key.public, f"lichen/{public_team.id}"
        )
        assert (verified.value is not None) is is_there
    assert server.get(f"/state-at/{size - 1}/members/00").status == 404
    assert server.get(f"/state/members/{b'member/alice'.hex()}").status == 200


def test_a_private_ledger_is_read_by_members_only(private_team: Team, serve: Start) -> None:
    server, team = serve(private_team), private_team
    accepted = server.submit(team.entry(), receipt=True).json()
    for path in (
        "/checkpoint", "/tile/0/000.p/2", "/tile/entries/000.p/2", "/checkpoint-signatures/000.p/2", "/entry/0",
        f"/receipt/{accepted['index']}", "/state/members/00", "/state-at/2/members/00",
        "/artefact/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    ):  # fmt: skip
        refused = server.get(path)
        problem(refused, 401, "unsigned")
        assert refused.headers["www-authenticate"].startswith("Lichen-Signature")
        problem(server.get(path, key=SigningKey.generate()), 403, "not-a-member")
        answered = server.get(path, key=team.keys["bob"])
        assert answered.status in (200, 404), path
        assert "public" not in answered.headers["cache-control"]
    for path in ("/", "/health", "/metrics", "/openapi.json"):
        assert server.get(path).status == 200


def test_a_signed_request_counts_once_here_now_and_for_one_thing(private_team: Team, serve: Start) -> None:
    server, team = serve(private_team), private_team
    key, now = team.keys["alice"], int(time.time())

    def signed(path: str = "/checkpoint", *, ledger: str = team.id, created: int = now, method: str = "GET"):
        return sign_request(key, ledger, method, path, created=created, nonce=os.urandom(16))

    good = signed()
    assert server.get("/checkpoint", headers=good).status == 200
    problem(server.get("/checkpoint", headers=good), 401, "replayed")
    problem(server.get("/checkpoint", headers=signed("/entry/0")), 401, "bad-signature")
    problem(server.get("/checkpoint?x=1", headers=signed()), 401, "bad-signature")
    problem(server.get("/checkpoint", headers=signed(method="PUT")), 401, "bad-signature")
    problem(server.get("/checkpoint", headers=signed(ledger="0" * 64)), 401, "wrong-ledger")
    for created in (now - 3_600, now + 3_600):
        told = problem(server.get("/checkpoint", headers=signed(created=created)), 401, "untimely")
        assert abs(told["server_time_unix_seconds"] - now) < 120
    forged = {**signed(), "Signature": signed()["Signature"]}
    problem(server.get("/checkpoint", headers=forged), 401, "bad-signature")
    problem(
        server.get("/checkpoint", headers={**signed(), "Signature": "lichen=:AAAA:"}),
        401,
        "malformed-signature",
    )
    log = sign_request(team.log_key, team.id, "GET", "/checkpoint", created=now, nonce=os.urandom(16))
    problem(server.get("/checkpoint", headers=log), 403, "not-a-member")


def test_outsiders_and_forgers_are_refused_with_the_rules_name(team: Team, serve: Start) -> None:
    server = serve(team)
    stranger = SigningKey.generate()
    payload = team.statement("alice").to_bytes()
    told = problem(server.submit(Entry.signed(payload, stranger)), 403, "rejected")
    assert told["rule"] == "members.not-admitted"
    told = problem(server.submit(Entry.signed(payload, team.keys["bob"])), 403, "rejected")
    assert told["rule"] == "members.forged-author"
    good = team.entry()
    changed = Entry(good.key_id, good.signature, good.payload.replace(b'"exit_status":0', b'"exit_status":1'))
    assert problem(server.submit(changed), 403, "rejected")["rule"] == "ledger.bad-signature"
    elsewhere = team.entry(ledger="A" * 43)
    assert problem(server.submit(elsewhere), 422, "rejected")["rule"] == "ledger.wrong-ledger"
    assert server.submit(good).status == 201
    resigned = Entry(good.key_id, bytes(64), good.payload)
    assert problem(server.submit(resigned), 409, "rejected")["rule"] == "ledger.duplicate"
    assert server.get("/health").json()["entries"] == 3


BAD = [
    ("POST", "/records", b"", {"Content-Type": ENTRY_TYPE}, 400, "malformed"),
    ("POST", "/records", b"\x01" * 80, {"Content-Type": ENTRY_TYPE}, 400, "malformed"),
    ("POST", "/records", b"{}", {"Content-Type": "application/json"}, 415, "unsupported-media-type"),
    ("POST", "/records", b"{}", {}, 415, "unsupported-media-type"),
    ("POST", "/records", b"{", {"Content-Type": "application/vnd.dsse.envelope.v1+json"}, 400, "malformed"),
    ("POST", "/records", b"x" * 100_000, {"Content-Type": ENTRY_TYPE}, 413, "too-large"),
    ("POST", "/records?receipt=maybe", b"", {"Content-Type": ENTRY_TYPE}, 400, "bad-query"),
    ("GET", "/records", None, {}, 405, "method-not-allowed"),
    ("DELETE", "/checkpoint", None, {}, 405, "method-not-allowed"),
    ("GET", "/nothing/here", None, {}, 404, "not-found"),
    ("GET", "/tile/../log.key", None, {}, 404, "not-found"),
    ("GET", "/tile/0/%2e%2e/log.key", None, {}, 404, "not-found"),
    ("GET", "/tile/0/0", None, {}, 404, "not-found"),
    ("GET", "/tile/0/x000/000", None, {}, 404, "not-found"),
    ("GET", "/tile/0/000.p/256", None, {}, 404, "not-found"),
    ("GET", "/entry/01", None, {}, 404, "not-found"),
    ("GET", "/entry/-1", None, {}, 404, "not-found"),
    ("GET", "/entry/99999999999999999999", None, {}, 404, "not-found"),
    ("GET", "/receipt/2", None, {}, 404, "not-found"),
    ("GET", "/state/members/zz", None, {}, 404, "not-found"),
    ("GET", "/artefact/../../log.key", None, {}, 404, "not-found"),
    ("PUT", "/artefact/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", b"x", {}, 401, "unsigned"),
]  # fmt: skip


def test_bad_input_gets_a_clear_answer_and_changes_nothing(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    for method, path, body, headers, status, code in BAD:
        problem(server.ask(method, path, body, headers), status, code)
    assert server.get("/health").json() == {"status": "ok", "entries": 2}
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_a_body_without_an_announced_size_is_cut_off_at_the_limit(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    pieces = (b"x" * 10_000 for _ in range(1_000))
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as caller:
        caller.sendall(
            b"POST /records HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.lichen.entry\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        sent, received = 0, b""
        with contextlib.suppress(OSError):  # a reset may overtake the answer
            for piece in pieces:
                caller.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += len(piece)
        with contextlib.suppress(OSError):
            received = caller.recv(65_536)
    assert sent < 10_000_000
    assert received == b"" or b" 413 " in received.split(b"\r\n")[0]
    assert server.get("/health").json()["entries"] == 2


def test_many_submitters_share_commits_and_none_is_lost(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    indices: list[int] = []
    lock = threading.Lock()

    def submit(member: str) -> None:
        with contextlib.closing(server.connect()) as connection:
            for _ in range(25):
                answer = server.submit(public_team.entry(member), connection=connection)
                assert answer.status == 201, answer.text
                with lock:
                    indices.append(answer.json()["index"])

    threads = [threading.Thread(target=submit, args=(("alice", "bob")[turn % 2],)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(indices)) == len(indices) == 200
    told = server.get("/metrics").text
    batches = int(next(line for line in told.splitlines() if line.startswith("lichen_commit_records_count")).split()[1])  # fmt: skip
    assert batches < 200
    assert 'lichen_records_total{outcome="appended"} 200' in told
    assert server.stop() == 0
    assert audit(public_team.directory, default_contracts()).is_sound


def test_what_was_acknowledged_is_there_after_kill_9(public_team: Team, serve: Start) -> None:
    acknowledged: dict[int, bytes] = {}
    lock = threading.Lock()
    for _ in range(3):
        server = serve(public_team)

        def submit(server: Server = server) -> None:
            with contextlib.closing(server.connect()) as connection:
                while True:
                    entry = public_team.entry()
                    try:
                        answer = server.submit(entry, connection=connection)
                    except (OSError, http.client.HTTPException):
                        return
                    if answer.status == 201:
                        with lock:
                            acknowledged[answer.json()["index"]] = entry.to_bytes()

        threads = [threading.Thread(target=submit) for _ in range(4)]
        before = len(acknowledged)
        for thread in threads:
            thread.start()
        while len(acknowledged) < before + 40:
            time.sleep(0.005)
        server.kill()
        for thread in threads:
            thread.join()
    with public_team.open() as ledger:
        assert {index: ledger.entry(index).to_bytes() for index in acknowledged} == acknowledged
    assert audit(public_team.directory, default_contracts()).is_sound


def test_told_to_stop_it_answers_what_it_took_and_seals(public_team: Team, serve: Start) -> None:
    server = serve(public_team)
    answers: list[int] = []
    lost: list[bytes] = []

    def submit() -> None:
        with contextlib.closing(server.connect()) as connection:
            while True:
                entry = public_team.entry()
                try:
                    answer = server.submit(entry, connection=connection)
                except (OSError, http.client.HTTPException):  # closed before the request was read
                    lost.append(entry.payload)
                    return
                answers.append(answer.status)
                if answer.status != 201:
                    problem(answer, 503, "shutting-down")
                    return

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    while answers.count(201) < 20:
        time.sleep(0.005)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    with public_team.open() as ledger:
        assert ledger.size == ledger.sealed_size
        runs = [index for index, entry in ledger.entries(2) if b"urn:lichen:run" in entry.payload]
        assert len(runs) == answers.count(201)
        assert all(ledger.find_payload(hashlib.sha256(payload).digest()) is None for payload in lost)


def test_a_byte_now_and_then_does_not_prolong_the_time_for_a_head(public_team: Team, monkeypatch) -> None:
    with in_thread(public_team, ServerSettings(header_seconds=0.5), monkeypatch) as server:
        assert drip(server.port, b"GET /checkpoint HTTP/1.1\r\nX-Slow: ").startswith(b"HTTP/1.1 408 ")
        assert server.get("/health").status == 200


def test_whoever_sends_too_slowly_is_told_and_cut_off(public_team: Team, monkeypatch) -> None:
    patience = ServerSettings(header_seconds=0.2, body_seconds=0.2)
    with in_thread(public_team, patience, monkeypatch) as server:
        for start in (
            b"",
            b"GET /che",
            b"POST /records HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.lichen.entry\r\nContent-Length: 500\r\n\r\n\x01",
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as caller:
                caller.sendall(start)
                received = b""
                while piece := caller.recv(65_536):
                    received += piece
                assert received.startswith(b"HTTP/1.1 408 "), (start, received)
                assert b"urn:lichen:problem:too-slow" in received


def test_whoever_does_not_take_the_answer_loses_it(public_team: Team, monkeypatch) -> None:
    data = os.urandom(30_000_000)
    path = f"/artefact/{hash_bytes(data).cid}"
    with in_thread(public_team, ServerSettings(body_seconds=0.3), monkeypatch) as server:
        assert server.ask("PUT", path, data, key=public_team.keys["alice"]).status == 201
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as caller:
            caller.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert caller.recv(12) == b"HTTP/1.1 200"
            time.sleep(2)
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := caller.recv(1 << 20):
                    received += len(piece)
        assert received < len(data)
        assert server.get(path).body == data


@pytest.mark.parametrize(
    "start",
    [b"GET /" + b"a" * 40_000, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: " + b"a" * 40_000, b"not http at all\r\n\r\n"],
)  # fmt: skip
def test_a_head_that_is_too_long_or_no_http_is_refused(public_team: Team, serve: Start, start: bytes) -> None:
    server = serve(public_team)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as caller:
        caller.sendall(start)
        received = b""
        with contextlib.suppress(
            ConnectionResetError
        ):  # what is left unread of the head resets the connection
            while piece := caller.recv(65_536):
                received += piece
    assert received == b"" or received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert server.get("/health").status == 200
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_too_much_at_once_is_refused_until_later(public_team: Team, monkeypatch) -> None:
    few = ServerSettings(records_per_second=0.01, records_burst=3)
    with in_thread(public_team, few, monkeypatch) as server:
        statuses = [server.submit(public_team.entry()).status for _ in range(5)]
        assert statuses == [201, 201, 201, 429, 429]
        refused = server.submit(public_team.entry())
        problem(refused, 429, "too-many-requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert server.submit(public_team.entry("bob")).status == 201


def test_artefacts_are_kept_by_members_and_verified(team: Team, serve: Start) -> None:
    server, key = serve(team), team.keys["bob"]
    small, large = b"a model", os.urandom(3_000_000)
    for data in (small, large, b""):
        path = f"/artefact/{hash_bytes(data).cid}"
        problem(server.ask("PUT", path, data), 401, "unsigned")
        assert server.get(path, key=reader_key(team)).status == 404
        assert server.ask("PUT", path, data, key=key).status == 201
        assert server.ask("PUT", path, data, key=key).status == 200
        answer = server.get(path, key=reader_key(team))
        assert answer.body == data
        assert "immutable" in answer.headers["cache-control"]
        head = server.ask("HEAD", path, key=reader_key(team))
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(data)), b"")
    wrong = f"/artefact/{hash_bytes(b'other').cid}"
    problem(server.ask("PUT", wrong, small, key=key), 422, "verification")
    assert server.get(wrong, key=reader_key(team)).status == 404


def test_an_answer_is_not_lost_in_a_reset_when_the_body_was_not_wanted(
    public_team: Team, serve: Start
) -> None:
    server, key, data = serve(public_team), public_team.keys["bob"], os.urandom(3_000_000)
    path = f"/artefact/{hash_bytes(data).cid}"
    assert server.ask("PUT", path, data, key=key).status == 201
    for _ in range(20):
        assert server.ask("PUT", path, data, key=key).status == 200
        problem(server.ask("PUT", path, data), 401, "unsigned")


def test_an_artefact_beyond_the_limit_is_not_taken(public_team: Team, serve: Start) -> None:
    server, data = serve(public_team, "--artefact-mib", "1"), bytes(2**20 + 1)
    path = f"/artefact/{hash_bytes(data).cid}"
    try:
        answer = server.ask("PUT", path, data, key=public_team.keys["alice"])
    except OSError:
        pass  # cut off while it was sending
    else:
        problem(answer, 413, "too-large")
    assert server.get(path).status == 404
    assert list((public_team.directory / "store").glob("incoming/*")) == []


def test_without_the_logs_key_nothing_is_served(public_team: Team, tmp_path) -> None:
    (public_team.directory / "log.key").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "lichen", "serve", "--port", "0", "--ledger", str(public_team.directory)],
        env={**os.environ, "LICHEN_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "log.key is missing" in done.stderr
