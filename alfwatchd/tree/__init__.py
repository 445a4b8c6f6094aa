"""What the program believes is on disk: folders, packed rows, sessions, frozen snapshots.

**Pure, and owned by one thread. A listing goes in, changes come out; nothing else ever changes a row.** Face:
`tree.Tree`, `sessions.Snapshot`.
"""
