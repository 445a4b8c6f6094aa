"""Copies the tables to folders and S3.

A reader finds a whole pair, whichever program publishes, fails or is killed; nothing here talks to the engine. Face:
`publisher.Publisher`, `publication.publish`, `cache_info.Target`.
"""
