"""What work costs: sources of joules, their attribution to a process tree, the grid behind them, plausibility.

Read in this order: ``measurement`` (the value everything else passes on), ``sources`` (the port), one source,
``attribution`` (whose CPU seconds), ``meter`` (a window over all of it), ``grid`` and ``carbon``, ``plausibility``.
"""
