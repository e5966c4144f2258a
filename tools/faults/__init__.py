"""What is done to a ledger to see whether it keeps its word: kills, cuts, flips, full and failing disks.

Each module does one kind of harm and says what came of it; the tests run them small, ``benchmarks/faults.py`` runs them large. All
of them use the ledger through its public interface and the bytes of its file, so they hold whatever lies in between.
"""
