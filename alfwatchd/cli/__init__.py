"""Arguments, commands, exit codes, and what people read.

**A command imports heavy modules only when it needs them, and never ends with 0 if it did not do what it was asked
for.** Face: `main.run`.
"""
