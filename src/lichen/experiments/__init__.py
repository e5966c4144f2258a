"""The report's claims, put to the test on this machine: each experiment is one file that answers with a verdict.

Experiments use the public commands and functions only, state their seed, charge their own joules, and say *confirmed*, *not
confirmed* or *depends*. Third parties add theirs through the entry-point group ``lichen.experiments``.
"""
