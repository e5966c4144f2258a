"""Hashes, keys and envelopes.

=================  ==========================================================
``hashes``         SHA-256 and keyed digests
``keys``           Ed25519 keys and their identifiers
``key_file``       a secret key on disk; the one file here that touches one
``note``           signed notes and witness cosignatures (C2SP)
``sealed``         private bytes under a group's key
=================  ==========================================================

The ``cryptography`` package is imported when a key is first used, not when these modules are, so programs that only
hash do not pay for it.
"""
