"""Follows the change feed for `alfwatchd follow`: which sessions are told, when they are complete, and their commands.

**Each completion is told at least once, over restarts of both sides: the cursor file is written after what was told.
A session is told again only if its required datasets differ.** Face: `follower.Follower`, `completeness.Criteria`,
`cursor_file.CursorFile`, `commands.Runner`, `loop.Loop`.
"""
