"""Run, publish, look up, trace lineage, keep the balance: what people do with the ledger day by day.

The way of a run: ``command`` names what is asked, ``lookup`` asks the ledger, on a miss ``supervise`` runs the command
under ``trace`` and the meter, ``manifest`` says what it depended on, ``record`` writes it down, ``session`` strings
these together. Nothing here knows how entries are sealed or proven; that is the ledger's room.
"""
