"""One pass over an archive: the order in which everything is checked."""

from __future__ import annotations

import base64
from collections.abc import Callable

from lichen.archive.standalone.ed25519 import Key
from lichen.archive.standalone.faults import Fault, Unreadable
from lichen.archive.standalone.files import OWN_FILES, WIDTH, Files, car_name, piece_name, pieces, tile_names
from lichen.archive.standalone.members import did_of
from lichen.archive.standalone.notes import note_key, open_note, parse_checkpoint
from lichen.archive.standalone.replay import Replay
from lichen.archive.standalone.shapes import CID_TEXT
from lichen.archive.standalone.texts import b64u, canonical, parse_canonical
from lichen.archive.standalone.trees import leaf_hash, root_of_tile
from lichen.archive.standalone.workers import Workers, check_cars, check_files, check_signatures

__all__ = ["SMALL_FILE_MAX", "STATUS", "Check"]

SMALL_FILE_MAX = 1 << 24
BATCH_COUNT = 64
NUMBERS = ("entry", "size_bytes")
STATUS = {
    "included": {"sealed", "sha256", "size_bytes"},
    "left-out": set(),
    "missing": set(),
    "directory": set(),
}


class Check:
    """One pass over an archive.

    Args:
        files: Its files.
        workers: Where signatures and files are checked.
        tell: Told how far it is: what, how many are done, how many there are.
    """

    def __init__(self, files: Files, workers: Workers, tell: Callable) -> None:
        self.files = files
        self.workers = workers
        self.tell = tell
        self.replay = Replay(self.entry_at)
        self.size = 0
        self.leaves: list = []  # of level 0, joined by 256
        self.expected = set(OWN_FILES)
        self.rows: dict = {}
        self.earlier: dict = {}
        self.unjudged = 0  # signatures on the checkpoint by keys that were not given

    def run(self, witnesses: list, earlier: dict, now: int) -> None:
        """Check everything.

        Args:
            witnesses: Verifier keys that must have cosigned the checkpoint.
            earlier: Names of files with earlier checkpoints, and their texts.
            now: Seconds since 1970, by which the times of cosignatures are judged.

        Raises:
            Fault: The first thing that does not hold.
        """
        self.check_sums()
        note = self.text_of("checkpoint")
        _, self.size, root = parse_checkpoint(note.rpartition("\n\n")[0] + "\n")
        self.read_rows()
        self.earlier = {
            name: parse_checkpoint(text.rpartition("\n\n")[0] + "\n") for name, text in earlier.items()
        }
        self.check_entries()
        self.check_checkpoint(note, witnesses, root, now)
        for name, text in earlier.items():
            self.check_earlier(name, text)
        self.check_tiles()
        self.check_keys()
        self.check_artefacts()
        self.check_facts()
        names = self.files.sums.keys()
        if names != self.expected:
            raise Fault("%s does not belong to an archive of this log" % sorted(names ^ self.expected)[0])

    # ---- the files ----

    def check_sums(self) -> None:
        """Hand out the digests of all files but artefacts, whose turn comes later, and wait for them."""
        names = [name for name in self.files.sums if not name.endswith(".car")]
        for at in range(0, len(names), BATCH_COUNT):
            batch = {name: self.files.sums[name] for name in names[at : at + BATCH_COUNT]}
            self.workers.submit(check_files, self.files.root, batch)
            self.tell("files", at, len(names))
        self.workers.settle()

    def text_of(self, name: str) -> str:
        """A small file as text."""
        try:
            return self.files.read(name, SMALL_FILE_MAX).decode("utf-8")
        except UnicodeDecodeError:
            raise Fault("%s is not text" % name) from None

    # ---- the entries ----

    def entry_at(self, index: int) -> bytes:
        """Compact entry at an index."""
        number = index // WIDTH
        return self.files.bundle(number, min(WIDTH, self.size - number * WIDTH))[index % WIDTH]

    def check_entries(self) -> None:
        """Replay every entry; signatures go to the workers.

        Raises:
            Fault: The first entry that does not hold.
        """
        for number, width in pieces(self.size):
            index = number * WIDTH
            try:
                heads = self.files.heads(number, width)
                if heads:
                    self.expected.add(piece_name("checkpoints", number, width))
                self.expected.add(piece_name("tile/entries", number, width))
                for data in self.files.bundle(number, width):
                    index = self.replay.log.size
                    self.check_entry(data, heads)
                nothing_left(heads)
            except Fault as fault:
                self.hand_out()
                self.workers.settle()
                self.workers.wrong.append((index if fault.index is None else fault.index, fault.message))
                return
            self.hand_out()
            self.tell("entries", self.replay.log.size, self.size)
        self.workers.settle()

    def check_entry(self, data: bytes, heads: list) -> None:
        """Replay one entry, and the checkpoint behind it when it is a seal."""
        record = self.replay.take(data)
        log = self.replay.log
        if record.index % WIDTH == 0:
            self.leaves.append([])
        self.leaves[-1].append(leaf_hash(data))
        if record.kind == "seal":
            if not heads:
                raise Fault("the checkpoint behind the seal is missing")
            self.replay.take_checkpoint(heads.pop(0))
        for field in ("cid", "detail", "manifest"):
            if field in record.said and record.kind not in ("genesis", "log-key", "member", "seal"):
                self.name_artefact(record.said[field], record.index)
        for name, (origin, size, root) in self.earlier.items():
            if size == log.size and (origin != self.replay.genesis.origin or root != log.root()):
                raise Fault("this log is not the one that %s commits to" % name)
        if len(self.leaves[-1]) == WIDTH:
            self.leaves[-1] = b"".join(self.leaves[-1])

    def hand_out(self) -> None:
        """Hand the signatures of a bundle to the workers."""
        jobs, self.replay.jobs = self.replay.jobs, []
        for at in range(0, len(jobs), BATCH_COUNT):
            self.workers.submit(check_signatures, jobs[at : at + BATCH_COUNT])

    # ---- what stands beside the entries ----

    def check_checkpoint(self, note: str, witnesses: list, root: bytes, now: int) -> None:
        """Check the newest checkpoint: of this log, over all entries, signed by the log and by every witness named."""
        if self.workers.wrong:
            return
        genesis, log = self.replay.genesis, self.replay.log
        if self.replay.seal is None or self.replay.seal["tree_size"] != log.size - 1:
            raise Fault("the last entry of the archive is not a seal")
        keys = [note_key(genesis.origin, self.replay.members.log_key_at(log.size - 1)), *witnesses]
        text, signed, self.unjudged = open_note(note, keys, now)
        if note.count("\n\u2014 %s " % genesis.origin) != 1:
            raise Fault("the checkpoint has several signatures in the log's name")
        missing = [key[0] for key in keys if key not in signed]
        if missing:
            raise Fault("%s has not signed the checkpoint" % missing[0])
        if parse_checkpoint(text) != (genesis.origin, log.size, log.root()) or root != log.root():
            raise Fault("the checkpoint is not over the entries of the archive")
        if text.count("\n") != 3:
            raise Fault("the checkpoint has lines that this log does not write")

    def check_earlier(self, name: str, note: str) -> None:
        """Check that an earlier checkpoint was signed by the log; that it is of this log was seen on the way."""
        genesis = self.replay.genesis
        if not self.replay.log.size:
            return
        log_key = self.replay.members.log_key_at(max(0, self.earlier[name][1] - 1))
        open_note(note, [note_key(genesis.origin, log_key)])
        if self.earlier[name][1] > self.size:
            raise Fault(
                "%s commits to %d entries, the archive has %d" % (name, self.earlier[name][1], self.size)
            )

    def check_tiles(self) -> None:
        """Check every hash tile against the entries."""
        if self.workers.wrong:
            return
        hashes = [each if isinstance(each, bytes) else b"".join(each) for each in self.leaves]
        for level in tile_names(self.size):
            above = []
            for (name, width), tile in zip(level, hashes):
                if self.files.read(name, 32 * WIDTH) != tile:
                    raise Fault("%s is not the hashes of what it covers" % name)
                self.expected.add(name)
                if width == WIDTH:
                    above.append(root_of_tile(tile))
            joined = b"".join(above)
            hashes = [joined[at : at + 32 * WIDTH] for at in range(0, len(joined), 32 * WIDTH)]

    def check_keys(self) -> None:
        """Check the list of keys against what the entries say."""
        if self.workers.wrong:
            return
        genesis = self.replay.genesis
        log, *successors = [
            {"first": first, **described(genesis.origin, key)} for first, key in self.replay.members.log_keys
        ]
        del log["first"]
        keys = {"log": log, "members": self.replay.members.described()}
        expected = canonical({**keys, "successors": successors} if successors else keys) + "\n"
        if self.text_of("keys.json") != expected:
            raise Fault("keys.json does not list the keys that the entries name")

    # ---- artefacts ----

    def read_rows(self) -> None:
        """Read the list of artefacts."""
        with self.files.open("artefacts.jsonl") as file:
            last = ""
            for line in file:
                row = parse_canonical(line[:-1]) if line.endswith(b"\n") else None
                if not isinstance(row, dict) or not isinstance(row.get("status"), str):
                    raise Fault("artefacts.jsonl has a malformed line")
                if row["status"] not in STATUS or any(type(row.get(name, 0)) is not int for name in NUMBERS):
                    raise Fault("artefacts.jsonl has a malformed line")
                if row.keys() - {"entry"} != STATUS[row["status"]] | {"cid", "status"}:
                    raise Fault("artefacts.jsonl has a malformed line")
                if not CID_TEXT(row["cid"]) or row["cid"] <= last:
                    raise Fault("artefacts.jsonl is not in order")
                last = row["cid"]
                self.rows[last] = row
        self.unnamed = {cid for cid, row in self.rows.items() if "entry" in row}

    def name_artefact(self, cid: str, index: int) -> None:
        """Note that an entry names an artefact."""
        row = self.rows.get(cid)
        if row is None or row.get("entry", index) > index:
            raise Fault("artefacts.jsonl does not say what became of %s" % cid)
        if cid in self.unnamed and row["entry"] == index:
            self.unnamed.discard(cid)
        if "entry" not in row or cid in self.unnamed:
            raise Fault("artefacts.jsonl does not say which entry names %s first" % cid)

    def check_artefacts(self) -> None:
        """Check every artefact that is there down to its bytes."""
        if self.workers.wrong:
            return
        if self.unnamed:
            raise Fault("no entry names %s as artefacts.jsonl says" % min(self.unnamed))
        rows = [row for row in self.rows.values() if row["status"] == "included"]
        for row in rows:
            self.expected.add(car_name(row["cid"]))
            if car_name(row["cid"]) not in self.files.sums:
                raise Fault("%s is missing" % car_name(row["cid"]))
        for at in range(0, len(rows), BATCH_COUNT):
            batch = [(row, self.files.sums[car_name(row["cid"])]) for row in rows[at : at + BATCH_COUNT]]
            self.workers.submit(check_cars, self.files.root, batch)
            self.tell("artefacts", at, len(rows))
        self.workers.settle()

    def counts(self) -> dict:
        """How many artefacts are there, and how many are not."""
        found = dict.fromkeys(STATUS, 0)
        for row in self.rows.values():
            found[row["status"]] += 1
        return found

    def check_facts(self) -> None:
        """Check what the archive says of itself."""
        if self.workers.wrong:
            return
        genesis, log = self.replay.genesis, self.replay.log
        facts = {
            "access": genesis.access,
            "artefacts": self.counts(),
            "format": 1,
            "ledger": genesis.id.hex(),
            "log_key": did_of(genesis.log_key.raw),
            "name": genesis.name,
            "root": log.root().hex(),
            "size": log.size,
        }
        said = parse_canonical(self.files.read("archive.json", SMALL_FILE_MAX)[:-1])
        if isinstance(said, dict) and type(said.get("format")) is int and said["format"] > 1:
            raise Unreadable("this archive is of format %d, this program reads format 1" % said["format"])
        if self.text_of("archive.json") != canonical(facts) + "\n":
            raise Fault("archive.json does not say what the archive holds")


def described(origin: str, key: Key) -> dict:
    """A key of the log, as the list of keys has it."""
    name, short, _, _ = note_key(origin, key)
    vkey = "%s+%s+%s" % (name, short.hex(), base64.b64encode(b"\x01" + key.raw).decode())
    return {"did": did_of(key.raw), "key": b64u(key.raw), "vkey": vkey}


def nothing_left(heads: list) -> None:
    """Check that every checkpoint was behind a seal.

    Raises:
        Fault: One was not.
    """
    if heads:
        raise Fault("there is a checkpoint where there is no seal")
