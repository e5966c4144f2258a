"""The command line: parse, call, show. No logic lives here.

``main`` holds the table of commands and nothing that takes time to import; each command is a file of its own, loaded
when it is called. ``errors`` is the only place that turns an exception into a message and an exit status.
"""
