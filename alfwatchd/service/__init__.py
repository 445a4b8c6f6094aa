"""The program as a process: the daemon, one run, `serve`; how they start; settings files, locks, logs, systemd.

Starts and ends each part, and decides nothing for it. Face: `daemon.run`, `once.run_once`, `serve.run`,
`configuration.load`.
"""
