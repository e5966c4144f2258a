"""Entries in one agreed order, with proofs: tree, state map, seals, checkpoints, storage and audit.

The pure parts (tree, proof, state_map, checkpoint, seal, genesis, receipt) compute on bytes that come in as
arguments. `lichen.ledger.ledger.Ledger` joins them with one SQLite file; `lichen.ledger.ports` names what the rooms
above hand in. Nothing is imported here, so that a command that only parses a receipt does not load a database.
"""
