"""What every command works with: project, settings, ledger, store and keys, opened together."""
