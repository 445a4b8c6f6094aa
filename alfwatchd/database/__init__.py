"""Reads the tables of an Alyx database from a folder, a zip, a web server or its REST API.

It keeps the last good copy, and posts what can be adopted. **It never changes a table, and a source that cannot be
read changes nothing.** Face: `adopter.Adopter`, `look.look`.
"""
