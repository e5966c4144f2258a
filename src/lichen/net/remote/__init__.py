"""A ledger behind a URL, used as one that lies on this disk; nothing a server says is believed."""
