"""The program as a process: the daemon, one run, and `serve`; settings files, locks, logs, systemd.

**It starts and ends each part, and decides nothing for it.** Face: `daemon.run`, `once.run_once`, `serve.run`,
`configuration.load`.
"""
