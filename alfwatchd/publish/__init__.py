"""Copies the tables to folders and S3.

**A reader finds a whole pair, whichever program publishes, fails or is killed. Nothing here talks to the engine.**
Face: `publisher.Publisher`, `publication.publish`, `target.Target`.
"""
