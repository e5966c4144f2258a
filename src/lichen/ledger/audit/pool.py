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
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from lichen.errors import StorageError
from lichen.ledger.audit.examined import Examined, Examiner
from lichen.ledger.audit.worker import main as worker_main
from lichen.ledger.audit.worker import read_message, write_message

if TYPE_CHECKING:
    from lichen.ledger.audit.checked import Scope

__all__ = ["WORTHWHILE_COUNT", "CheckPool"]

WORTHWHILE_COUNT: Final = 8_000  # entries; below, starting processes takes longer than it saves
AHEAD_COUNT: Final = 3  # stretches under way for each worker


class CheckPool:
    """Looks at stretches of entries; a context manager.

    Args:
        scope: What needs to be known of the ledger.
        worker_count: Processes to start; 0 for none.
    """

    def __init__(self, scope: Scope, worker_count: int) -> None:
        self._scope = scope
        self._greeting = _pickled(scope)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for _ in range(worker_count if self._greeting is not None else 0):
            self._start()
        self._own = threading.local()
        self._opened: list[Examiner] = []
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
        for examiner in self._opened:
            examiner.close()
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

    def examine(
        self,
        stretches: Iterable[tuple[int, int]],
        keys: Callable[[], Mapping[bytes, bytes]],
        *,
        is_believed: bool = False,
    ) -> Iterator[Examined]:
        """Look at stretch after stretch.

        Args:
            stretches: First index, and one past the last.
            keys: Tells the public keys known so far, by key id; asked as each stretch is sent.
            is_believed: See `lichen.ledger.audit.examined.Examiner.examine`.

        Yields:
            What is known of each, in order.

        Raises:
            StorageError: A process died.
        """
        waiting: collections.deque[Future[Examined]] = collections.deque()
        ahead = AHEAD_COUNT * max(1, len(self._workers))
        stretches = iter(stretches)
        while True:
            for start, stop in itertools.islice(stretches, ahead - len(waiting)):
                waiting.append(
                    self._threads.submit(self._examine_one, start, stop, dict(keys()), is_believed)
                )
            if not waiting:
                return
            yield waiting.popleft().result()

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

    def sound_state(self, uri: str) -> Future[tuple[int, bytes] | None]:
        """Start `lichen.ledger.audit.sound_state.sound_state`; without processes it would only take the time of others."""
        if not self._workers:
            nothing: Future[tuple[int, bytes] | None] = Future()
            nothing.set_result(None)
            return nothing
        return self._threads.submit(self._ask, "state", uri)

    def _examine_one(self, start: int, stop: int, keys: dict[bytes, bytes], is_believed: bool) -> Examined:
        if self._workers:
            return Examined.unpack(self._ask("examine", start, stop, keys, is_believed))
        examiner: Examiner | None = getattr(self._own, "examiner", None)
        if examiner is None:
            examiner = self._own.examiner = Examiner(self._scope)
            self._opened.append(examiner)
        return examiner.examine(start, stop, keys, is_believed=is_believed)

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


def _pickled(scope: Scope) -> bytes | None:
    """A scope for another process; None when its contracts or views cannot be handed over."""
    try:
        return pickle.dumps(scope)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
