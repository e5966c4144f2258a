"""Find a metric in printed output, within a limit of time and memory.

A regular expression that can match in many ways, such as ``(a+)+$``, may need longer than anyone waits, and Python's matcher
cannot be given a limit. So it runs in a process of its own that is ended at the limit: the run it belongs to is long over,
and must be recorded whatever its patterns do. A matcher without backtracking would need no limit, but understands less
than what users of Python write. The process costs about 15 ms, and only where a pattern was asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys

from lichen.encoding.foreign_json import read_json

__all__ = ["LIMIT_SECONDS", "PatternError", "find_last"]

LIMIT_SECONDS = 10.0
_MEMORY_BYTES_MAX = (
    2 * 2**30
)  # (= 2147483648) the output is kept up to 4 MiB; a matcher's own notes may be many times that
_MATCHER = """
import json, re, resource, sys
seconds, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
asked = json.load(sys.stdin.buffer)
found = None
pattern = re.compile(asked["pattern"])
for found in pattern.finditer(asked["text"]):
    pass
json.dump(None if found is None else [found.group(1 if pattern.groups else 0)], sys.stdout)
"""


class PatternError(Exception):
    """A pattern gave no answer; the text says why, and what to do."""


def find_last(pattern: str, text: str, limit_seconds: float = LIMIT_SECONDS) -> str | None:
    """Find the last match of a pattern.

    Args:
        pattern: A regular expression that compiles.
        text: Where to look.
        limit_seconds: The longest it may take.

    Returns:
        The first group of the last match, or all of the match when the pattern has no group; None when nothing matches.

    Raises:
        PatternError: It took too long or too much memory, was interrupted, or its group took no part in the match.
    """
    asked = json.dumps({"pattern": pattern, "text": text}).encode()
    cpu_seconds = int(limit_seconds) + 1  # ends it even when this process was ended first
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER, str(cpu_seconds), str(_MEMORY_BYTES_MAX)],
            input=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit_seconds,
            check=True,
            cwd="/",
        )
        answer = read_json(done.stdout)
    except subprocess.TimeoutExpired:
        raise PatternError(
            f"looking for {pattern!r} took longer than {limit_seconds:g} s and was ended; write it so that each character can"
            " match in one way only, without a repetition inside a repetition"
        ) from None
    except KeyboardInterrupt:
        raise PatternError(f"looking for {pattern!r} was interrupted") from None
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise PatternError(f"looking for {pattern!r} failed: {error}") from None
    if answer is None:
        return None
    (found,) = answer
    if not isinstance(found, str):
        raise PatternError(f"the group of {pattern!r} takes no part in its last match")
    return found
