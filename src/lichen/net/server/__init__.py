"""`lichen serve`: one ledger, read and written through HTTP. Needs the extra ``web`` (starlette and uvicorn)."""
