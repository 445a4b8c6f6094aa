"""Owns all state that changes: one thread, in one loop that can be stepped, takes messages, scans, flushes and answers.

No other thread touches the tree or the tables: it posts a message. Face: `engine.Engine`, `model.EngineModel`,
`inbox.Inbox`, `status.status_line`, `waiting.wait_for`.
"""
