"""Answer work from the ledger instead of doing it again, or say why that cannot be."""
