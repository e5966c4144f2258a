"""Lichen: a ledger for machine learning that pays for itself in kilowatt-hours."""

__version__ = "0.1.0.dev0"
