"""Keep a ledger: make it, change its keys, verify and audit it, archive it, take another one over."""
