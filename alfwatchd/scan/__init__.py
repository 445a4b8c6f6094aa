"""Looks at the disk and says what is there.

It looks at one folder, a subtree, the md5 of a file, the mounts, the identity of the root. **It never decides what a
look means: it changes no row and deletes nothing.** Face: `scanner.Scanner`, `subtree.crawl`, `root_guard.RootGuard`,
`hasher.Hasher`.
"""
