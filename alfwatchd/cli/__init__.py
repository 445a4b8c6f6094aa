"""The command line: one file for each command, with its flags, its help and what it prints.

**A command to a daemon starts without numpy, pandas, pyarrow and FastAPI**: heavy modules are imported in the functions
that need them. Face: `main.run`.
"""
