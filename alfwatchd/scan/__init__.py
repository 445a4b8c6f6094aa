"""Looks at the disk and says what is there.

One folder, a subtree, the md5 of a file, the mounts, the identity of the root. Never decides what that means. Face:
`scanner.Scanner`, `subtree.crawl`, `root_guard.RootGuard`, `hasher.Hasher`.
"""
