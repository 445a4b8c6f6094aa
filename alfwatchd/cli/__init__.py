"""Arguments, commands, exit codes, and what people read.

Heavy modules are imported by the command that needs them. Face: `main.run`.
"""
