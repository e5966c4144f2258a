"""Start the agent, then step aside for the ``sitecustomize`` that would have been imported without it.

Written so that any Python, even 2.7, reads it without complaint. The agent's folder leaves ``sys.path`` before the next
``sitecustomize`` is looked for; when there is none, ImportError is raised for it just as the import system would.
"""

# ruff: noqa: S110, SIM105, UP036

import sys

if sys.version_info >= (3, 8):
    try:
        __import__("lichen_agent").begin()
    except Exception:  # a program must run even when it cannot be traced; the tracer notices
        pass
    __import__("lichen_agent_chain").chain(__name__, __file__)
