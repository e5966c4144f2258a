"""Tracing a run: which files, variables, modules and programs its result can depend on.

``trace`` holds the values, ``tracer`` strings the means together, ``places``, ``programs`` and ``variables`` say what
counts. Each means has one file and its own log format: ``agent`` (audit hook inside every Python process), ``preload``
(interposed C library), ``inotify`` (the kernel's view of watched directories), ``procfs`` (live processes).
"""

from lichen.runs.trace.trace import Access, AccessKind, Exec, StatKey, Trace

__all__ = ["Access", "AccessKind", "Exec", "StatKey", "Trace"]
