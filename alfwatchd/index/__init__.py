"""Keeps the tree equal to the disk: which folder is looked at next, and which listing may be believed.

**It is the one place where scan, watch and tree meet. A row goes only on proof of absence.** Scan workers are
processes of this package, and import no pyarrow. Face: `indexer.Indexer`.
"""
