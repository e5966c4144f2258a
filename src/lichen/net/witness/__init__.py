"""Witnesses over HTTP: the service that cosigns, the client that asks for cosignatures, and the monitor that compares.

Nothing is imported here, so that a client does not load the server, which needs the extra ``web``.
"""
