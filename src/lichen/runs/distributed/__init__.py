"""Runs of several processes: ranks that make one record, and runs inside runs."""
