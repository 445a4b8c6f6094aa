"""The journal: which sessions changed in which generation of the tables, kept in the state folder.

**It is written after the tables, so it names no change that readers cannot see. Where it cannot tell what changed, it
begins again, and its readers take the tables as a whole.** Face: `journal.Journal`, `journal.Feed`, `entries.Cursor`.
"""
