"""Bytes to values and back, each in exactly one form.

=================  ==========================================================
``base``           text alphabets: base64url, base64, hexadecimal; strict both ways
``canonical``      canonical JSON (RFC 8785)
``statement``      a record: in-toto Statement v1
``entry``          a signed record in 81 bytes more than its payload, and its DSSE envelope
=================  ==========================================================

Every decoder accepts a value's one encoding or raises :class:`lichen.errors.EncodingError`. Nothing here touches a
clock, a disk, a socket or randomness, and nothing here knows what a key is.
"""
