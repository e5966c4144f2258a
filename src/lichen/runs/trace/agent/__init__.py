"""The agent: files that run inside every Python process of a traced run, put there by PYTHONPATH.

Rules upheld by every file in this folder:

* It imports nothing of Lichen and nothing the interpreter has not loaded anyway, except ``mmap`` and ``_struct``.
* It works on Python 3.8 and later; on older ones ``sitecustomize`` steps aside.
* It never raises, never prints, and never changes what the program sees, apart from two variables in its environment.

The folder is on PYTHONPATH, so its modules are imported by their bare names, never as part of the package.
"""
