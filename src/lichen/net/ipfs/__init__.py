"""Artefacts from the IPFS world: clients of what others serve. What Lichen serves itself is in ``net.server.gateway``."""
