"""Hand over from the agent's ``sitecustomize`` to the next one on the path."""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import sys


def chain(name: str, file: str) -> None:
    """Import the module that the agent's one stands in front of, in its place.

    Args:
        name: Name of the module, ``sitecustomize``.
        file: File of the agent's module; its folder is taken off ``sys.path``.

    Raises:
        ImportError: There is no other; ``site`` takes that for the normal case.
    """
    machinery, bootstrap = sys.modules["_frozen_importlib_external"], sys.modules["_frozen_importlib"]
    folder = file.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for own in [module for module in sys.modules if module.startswith("lichen_agent")]:
        sys.modules.pop(own, None)
    spec = machinery.PathFinder.find_spec(name, sys.path)
    if spec is None or spec.loader is None:
        raise ImportError("No module named " + repr(name), name=name)
    module = bootstrap.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
