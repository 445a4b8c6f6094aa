"""One thread, one loop that can be stepped: takes messages, looks, flushes, answers.

Owner of all that changes. Face: `engine.Engine`, `inbox.Inbox`, `status.make_status`.
"""
