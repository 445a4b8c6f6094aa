"""One thread, and one loop that can be stepped: takes messages, looks, flushes, answers.

**It owns all that changes. Other threads only post messages or get frozen snapshots; time is passed in.** Face:
`engine.Engine`, `inbox.Inbox`, `status.make_status`.
"""
