"""The program that checks an archive with nothing but Python's standard library, 3.9 or newer.

It is a second implementation: nothing here imports anything of Lichen, or was made from it, so that a mistake on one side
shows as a difference. `assemble` joins these files into the one that every archive carries.

Rules upheld here: plain functions and few classes; no f-string tricks, no dependency; each file reads from top to bottom
without the others at hand.
"""
