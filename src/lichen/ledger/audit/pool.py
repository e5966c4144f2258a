"""Where entries are checked one by one: in this thread, or in processes on all processors.

Rules upheld here:

* Answers come in the order of the questions, and no more than a few are under way, so memory stays bounded.
* A ledger too small to pay for starting processes is checked in threads: OpenSSL lets go of the interpreter lock.
* Where processes cannot be started, or contracts cannot be handed to them, everything is done here.
* A process that dies is an error, and never a part of the ledger that was not looked at.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from lichen.errors import StorageError
from lichen.ledger.audit.checked import Checked, Checker, Row
from lichen.ledger.audit.worker import main as worker_main
from lichen.ledger.audit.worker import read_message, write_message

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey
    from lichen.ledger.ports import Contract

__all__ = ["WORTHWHILE_COUNT", "CheckPool"]

WORTHWHILE_COUNT: Final = 8_000  # entries; below, starting processes takes longer than it saves
AHEAD_COUNT: Final = 3  # chunks under way for each worker


class CheckPool:
    """Checks chunks of entries; a context manager.

    Args:
        contracts: Those in force.
        origin: Of the ledger's checkpoints.
        ledger: Id that its records name, as base64url.
        log_key: Of the log.
        worker_count: Processes to start; 0 for none.
        keeps_statements: See `lichen.ledger.audit.checked.Checker`.
    """

    def __init__(
        self,
        contracts: Sequence[Contract],
        origin: str,
        ledger: str,
        log_key: PublicKey,
        worker_count: int,
        *,
        keeps_statements: bool = True,
    ) -> None:
        self._checker = Checker(contracts, origin, ledger, log_key, keeps_statements=keeps_statements)
        self._greeting = (_pickled(contracts), origin, ledger, log_key.raw, keeps_statements)
        wanted = worker_count if self._greeting[0] is not None else 0
        self._workers: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for _ in range(wanted):
            self._start()
        self._threads = ThreadPoolExecutor(
            max(1, len(self._workers) or min(4, os.cpu_count() or 1)), thread_name_prefix="lichen-audit"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # nobody waits for what is under way
            for worker in self._workers:
                worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            for stream in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            worker.wait()

    @property
    def worker_count(self) -> int:
        """Processes beside this one."""
        return len(self._workers)

    def check(
        self, chunks: Iterable[list[Row]], keys: Callable[[], Mapping[bytes, bytes]]
    ) -> Iterator[tuple[list[Row], list[Checked]]]:
        """Check chunk after chunk.

        Args:
            chunks: Rows of entries.
            keys: Tells the public keys known so far, by key id; asked as each chunk is sent.

        Yields:
            Each chunk with what is known of its entries.

        Raises:
            StorageError: A process died.
            LichenError: What the chunks themselves raised, after those before it were checked.
        """
        waiting: collections.deque[tuple[list[Row], Future[list[Checked]]]] = collections.deque()
        ahead = AHEAD_COUNT * max(1, len(self._workers))
        chunks = iter(chunks)
        problem: Exception | None = None
        while True:
            try:
                for chunk in itertools.islice(chunks, ahead - len(waiting) if problem is None else 0):
                    waiting.append((chunk, self._threads.submit(self._check_one, chunk, dict(keys()))))
            except Exception as error:  # what came before it comes first
                problem = error
            if not waiting:
                if problem is not None:
                    raise problem
                return
            chunk, future = waiting.popleft()
            yield chunk, future.result()

    def build_parts(self, jobs: list[tuple[str, str]]) -> None:
        """Run `lichen.ledger.audit.state_roots.build_part` for each pair of paths."""
        from lichen.ledger.audit.state_roots import build_part

        if self._workers:
            collections.deque(self._threads.map(lambda job: self._ask("part", *job), jobs), maxlen=0)
        else:
            for job in jobs:
                build_part(*job)

    def damaged_pages(self, uri: str) -> Future[str | None]:
        """Start `lichen.ledger.audit.pages.damaged_pages`."""
        from lichen.ledger.audit.pages import damaged_pages

        if not self._workers:
            return self._threads.submit(damaged_pages, uri)
        return self._threads.submit(self._ask, "pages", uri)

    def _check_one(self, chunk: list[Row], keys: dict[bytes, bytes]) -> list[Checked]:
        if not self._workers:
            return self._checker.check(chunk, keys)
        return [Checked.unpack(packed) for packed in self._ask("check", chunk, keys)]

    def _ask(self, *task: Any) -> Any:
        """Hand a task to a process that has none, and wait for its answer."""
        worker = self._idle.get()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            write_message(worker.stdin, task)  # type: ignore[arg-type]
            return read_message(worker.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError) as error:
            raise StorageError(
                f"a process of this audit ended with status {worker.poll()}",
                remedy="Run the audit again; with little memory, with fewer processes.",
            ) from error
        finally:
            self._idle.put(worker)

    def _start(self) -> None:
        if not sys.executable:
            return
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            worker = subprocess.Popen(
                [sys.executable, "-c", f"from {worker_main.__module__} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            write_message(worker.stdin, self._greeting)  # type: ignore[arg-type]
        except OSError:
            return  # then there are fewer, or none
        self._workers.append(worker)
        self._idle.put(worker)


def _pickled(contracts: Sequence[Contract]) -> bytes | None:
    """Contracts for another process; None when they cannot be handed over."""
    try:
        return pickle.dumps(tuple(contracts))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
