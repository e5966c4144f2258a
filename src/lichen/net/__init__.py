"""Lichen over sockets: a ledger served through HTTP, and the client that believes nothing a server says.

Nothing is imported here, so that a client does not load the server, which needs the extra ``web``.
"""
