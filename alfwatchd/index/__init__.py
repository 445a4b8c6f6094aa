"""Keeps the tree equal to the disk: which folder is looked at next, and which listing may be believed.

The one place where scan, watch and tree meet. Face: `indexer.Indexer`.
"""
