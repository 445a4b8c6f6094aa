"""Follows inotify: adds watches, reads events, drops cookies, proves by a heartbeat that all of it works.

Says only "look there" or "events were lost". The only importer of watchdog. Face:
`supervisor.WatchSupervisor`, `events`.
"""
