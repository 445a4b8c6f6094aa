"""One thread, and one loop that can be stepped: takes messages, scans, flushes and answers.

**It owns all that changes. Other threads only post messages or get frozen snapshots; time is passed in.** Face:
`engine.Engine`, `model.EngineModel`, `inbox.Inbox`, `status.status_line`, `waiting.wait_for`.
"""
