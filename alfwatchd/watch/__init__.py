"""Follows inotify: adds watches, reads events, drops cookies, and proves by a heartbeat that all of it works.

**It says only "look there" or "events were lost", never what has changed. It is the only importer of watchdog.**
Face: `supervisor.WatchSupervisor`, `events`.
"""
