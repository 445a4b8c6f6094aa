"""Reads the tables of an Alyx database from a folder, a zip, a web server or its REST API.

Keeps the last good copy, and posts what can be adopted; never changes a table. Face: `adopter.Adopter`,
`adopter.look`.
"""
