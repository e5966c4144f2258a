"""Questions put to a ledger, and where their answers are kept ready."""
