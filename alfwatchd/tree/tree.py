"""The folders of the root as last seen: a mirror made of listings, which tells what each new listing changes.

Events and reconciling only choose which folder is listed next; rows change here and nowhere else. The rules that make
this converge are in docs/design/watching.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import Kind
from alfwatchd.tree.folder import NO_FOLDERS, NOT_LISTED, Changes, Folder, Listing, LookResult, compose, patch_session
from alfwatchd.tree.packed import (
    NO_FILES,
    SIGNATURE_SIZE,
    PackedFiles,
    differs_in_ctime,
    differs_in_inode,
    digest_of,
    has_change_time,
    inode_of,
    is_of_link,
    pack_signature,
    shared,
)
from alfwatchd.tree.rows import FolderRows, Problem, Session
from alfwatchd.tree.watch_claims import Claims


class Tree:
    """All folders that may hold sessions or datasets. Owned by one thread.

    Parameters
    ----------
    root_name : str
        Name of the root folder itself; only for messages.
    claims : Claims, optional
        Where watch descriptors of dropped folders are released; default: one of its own.
    """

    def __init__(self, root_name: str = "", claims: Claims | None = None) -> None:
        self.root = Folder(root_name, Kind.ROOT, None, NOT_LISTED)
        self.touched: set[Folder] = set()
        """Session folders that changed since `take_touched`."""
        self.patched: dict[Folder, dict[str, FolderRows]] = {}
        """Session folders where only known collections have other rows now: folder -> collection -> rows."""
        self.dropped: set[str] = set()
        """Paths of session folders that were removed since `take_touched`."""
        self.drops: list[tuple[str, ...]] = []
        """Paths of the sessions that were removed with each dropped folder, since `take_drops`."""
        self.with_problems: set[Folder] = set()
        self.n_ignored = 0
        """Number of entries that are not part of the layout, in all folders."""
        self.n_dropped = 0
        """How many folders were dropped, ever."""
        self.made_up: dict[int, bool] = {}
        """Devices whose inode numbers do not last -> whether they certainly keep change times. See `Identities`."""
        self._gone_rows: list[FolderRows] = []
        self.rewritten: list[bytes] = []
        """Signatures of files that were rewritten and kept their signature: recorded digests of them are wrong."""
        self.changed: list[bytes] = []
        """Signatures, from before, of files that a program wrote to."""
        self.unproven: list[tuple[str, str, bytes]] = []
        """Folder, name and signature of renumbered files that have kept their digests without proof."""
        self.claims = claims if claims is not None else Claims()

    def is_attached(self, folder: Folder) -> bool:
        """Tell whether a folder is still part of the tree."""
        return folder is self.root or folder.parent is not None

    def find(self, path: str) -> Folder | None:
        """Return the folder at a path relative to the root, or None if it is not in the tree."""
        folder: Folder | None = self.root
        for name in path.split("/") if path else ():
            folder = folder.children.get(name) if folder is not None else None
        return folder

    def apply(
        self,
        folder: Folder,
        listing: Listing,
        rewritten: AbstractSet[str] = frozenset(),
        unwritten: AbstractSet[str] = frozenset(),
    ) -> tuple[list[Folder], list[int], Changes]:
        """Make a folder equal to its listing.

        Parameters
        ----------
        folder : Folder
            Attached to the tree.
        listing : Listing
        rewritten : set of str
            Files whose content changed even if their signature did not: their digests are forgotten.
        unwritten : set of str
            Files whose content is certainly the same even if their change time is not: their digests stay.

        Returns
        -------
        new : list of Folder
            Sub-folders that must be scanned before anything is known about them: new ones, and those that are
            another folder than before under the same name.
        freed : list of int
            Watch descriptors that no folder claims any more.
        changes : Changes
            Dataset rows added, changed and removed, those of dropped sub-folders included.
        """
        folder.dev, folder.ino = listing.dev, listing.ino
        if listing.problems or folder.problems or listing.n_ignored != folder.n_ignored:
            self._set_problems(folder, listing.problems, listing.n_ignored)
        new: list[Folder] = []
        freed: list[int] = []
        changes = Changes()
        if folder.children or listing.folders:
            changes += self._compare_folders(folder, listing, new, freed)
        if folder.rows is not None:
            if rewritten or not _are_equal(folder.rows.packed, listing.packed):
                gone = set(folder.rows.packed.names) - set(listing.packed.names) - listing.unknown
                changes += self.patch(folder, LookResult(listing.packed.unpack(), gone), rewritten, unwritten)
        elif listing.packed.names:
            self._set_rows(folder, listing.packed)
            changes.added += len(listing.packed.names)
        return new, freed, changes

    def fill(self, folder: Folder, listing: Listing) -> None:
        """Do what `apply` does, in half the time, for a plain listing of a folder about which nothing is known yet.

        It must be the folder that the listing of its parent has shown.
        """
        # Equal numbers and names are one object each, which saves 25 MB in a tree of a million datasets.
        assert folder.parent is not None, "the root is in no listing"
        folder.dev, folder.ino = folder.parent.dev, folder.entry_ino
        folder.n_ignored = listing.n_ignored
        self.n_ignored += listing.n_ignored
        if listing.folders:
            names = map(shared, listing.folders)
            inodes = listing.folders.values()
            folder.children = {name: folder.make_child(name, ino) for name, ino in zip(names, inodes, strict=True)}
            if folder.kind is Kind.DATE:
                self.touched.update(folder.children.values())
        if listing.packed.names:
            folder.rows = FolderRows(shared(folder.collection), listing.packed)
            self._touch(folder)

    def _compare_folders(self, folder: Folder, listing: Listing, new: list[Folder], freed: list[int]) -> Changes:
        """Make the sub-folders of a folder those of a listing."""
        changes = Changes()
        for name in folder.children.keys() - listing.folders.keys() - listing.unknown:
            changes += self.drop(folder.children[name], freed)
        for name, ino in listing.folders.items():
            is_link = name in listing.links
            child = folder.children.get(name)
            is_shown = child is not None and (child.entry_ino == NOT_LISTED or listing.dev in self.made_up)
            if child is not None and is_shown:
                if child.entry_ino != ino or child.is_link != is_link:
                    self._show(child, ino, is_link=is_link)
                    new.append(child)
            elif child is None or child.entry_ino != ino or child.is_link != is_link:
                if child is not None:
                    changes += self.drop(child, freed)
                new.append(self._add(folder, name, ino, is_link=is_link))
        return changes

    def patch(
        self,
        folder: Folder,
        look: LookResult,
        rewritten: AbstractSet[str] = frozenset(),
        unwritten: AbstractSet[str] = frozenset(),
    ) -> Changes:
        """Change only the rows of the names that were looked at; `rewritten`, `unwritten` and result as for `apply`."""
        old = folder.rows.packed if folder.rows else NO_FILES
        values: dict[str, bytes | None] = {}
        changes = Changes()
        for name in look.gone:
            if old.get(name) is not None:
                values[name] = None
                changes.removed += 1
        for name, signature in look.files.items():
            before = old.get(name)
            if before is not None and before[:SIGNATURE_SIZE] == signature:
                if name not in rewritten:
                    continue
                self.rewritten.append(signature)
            if before == signature:
                continue
            values[name] = signature
            if before is None:
                changes.added += 1
            elif name not in rewritten and differs_in_ctime(before, signature):
                changes.renewed += 1
                if name in unwritten and not is_of_link(signature):
                    values[name] = signature + digest_of(before)
            elif name not in rewritten and self._is_renumbered(folder, before, signature):
                changes.renewed += 1
                values[name] = signature + digest_of(before)
                is_proven = self.made_up[folder.dev] or has_change_time(signature)
                if digest_of(before) and not is_proven:
                    self.unproven.append((folder.path, name, signature))
            else:
                changes.changed += 1
                if before[:SIGNATURE_SIZE] != signature:
                    self.changed.append(before[:SIGNATURE_SIZE])
        if changes:
            self._set_rows(folder, old.patch(values))
        return changes

    def _is_renumbered(self, folder: Folder, before: bytes, signature: bytes) -> bool:
        """Tell whether a file system gave a file another inode number; where it has a change time, that is certain."""
        return folder.dev in self.made_up and differs_in_inode(before, signature)

    def forget_digests(self, inodes: AbstractSet[bytes], tops: Iterable[Folder]) -> None:
        """Forget the digests of files with these packed inodes below some folders; looks at every row there."""
        for folder in (each for top in tops if self.is_attached(top) for each in top.walk()):
            if folder.rows is None or inodes.isdisjoint(folder.rows.packed.inodes()):
                continue
            known = {
                name: value[:SIGNATURE_SIZE]
                for name, value in folder.rows.files.items()
                if len(value) > SIGNATURE_SIZE and inode_of(value) in inodes
            }
            if known:
                self._set_rows(folder, folder.rows.packed.patch(known))

    def forget_unproven(self, top: Folder, *, is_any: bool = False) -> None:
        """Forget the digests of files below a folder whose change time is one that a program can set, or of any."""
        for folder in top.walk():
            if folder.rows is None or not folder.rows.packed.digests:
                continue
            bare = {
                name: value[:SIGNATURE_SIZE]
                for name, value in folder.rows.files.items()
                if len(value) > SIGNATURE_SIZE and (is_any or not has_change_time(value))
            }
            if bare:
                self._set_rows(folder, folder.rows.packed.patch(bare))

    def set_digest(self, folder: Folder, digests: Mapping[str, tuple[bytes, bytes]]) -> bool:
        """Add md5 digests to rows.

        Parameters
        ----------
        folder : Folder
        digests : mapping of str to (bytes, bytes)
            Name -> (packed signature, 16-byte digest). Ignored if the row has another signature now.

        Returns
        -------
        bool
            Whether a row changed.
        """
        if folder.rows is None:
            return False
        old = folder.rows.packed
        fresh: dict[str, bytes | None] = {}
        for name, (signature, digest) in digests.items():
            before = old.get(name)
            if before is not None and before[:SIGNATURE_SIZE] == signature and before != signature + digest:
                fresh[name] = signature + digest
        if fresh:
            self._set_rows(folder, old.patch(fresh))
        return bool(fresh)

    def restore(self, path: str, file_size: int | None, digest: bytes = b"") -> None:
        """Put back a row of earlier tables whose folder cannot be read now.

        Parameters
        ----------
        path : str
            Root-relative path of a session folder, or of a dataset in one.
        file_size : int or None
            Bytes; None for a session folder.
        digest : bytes
            md5 of the dataset, 16 bytes; empty if it is not known.
        """
        if "//" in path or (grammar.parse_session(path) if file_size is None else grammar.split_dataset(path)) is None:
            return
        *names, last = path.split("/")
        folder = self.root
        for name in names if file_size is not None else [*names, last]:
            child = folder.children.get(name)
            folder = self._add(folder, name, NOT_LISTED) if child is None else child
        if file_size is not None:
            known = folder.rows is not None and folder.rows.packed.get(last) is not None
            look = LookResult({} if known else {last: pack_signature(file_size, 0, 0, False) + digest})  # noqa: FBT003
            self.patch(folder, look)
        self._touch(folder)

    def drop(self, folder: Folder, freed: list[int]) -> Changes:
        """Remove a folder and all below it; add the watch descriptors that no folder claims any more to `freed`."""
        assert folder.parent is not None, "the root is never dropped"
        self._touch(folder)
        changes = Changes()
        below = list(folder.walk())
        sessions = tuple(each.path for each in below if each.kind is Kind.SESSION)
        if sessions:
            self.dropped.update(sessions)
            self.drops.append(sessions)
        for each in below:
            if each.kind is Kind.SESSION:
                self.touched.discard(each)
                self.patched.pop(each, None)
            changes.removed += len(each.rows.packed.names) if each.rows else 0
            self._set_problems(each, (), 0)
            wd = self.claims.unclaim(each)
            if wd is not None:
                freed.append(wd)
        del folder.parent.children[folder.name]
        self.n_dropped += len(below)
        self._gone_rows += [each.rows for each in below if each.rows is not None]
        for each in below:
            each.parent = None
            each.children = NO_FOLDERS
        return changes

    def take_drops(self) -> list[tuple[str, ...]]:
        """Return what `drops` holds, and empty it."""
        drops, self.drops = self.drops, []
        return drops

    def take_rewritten(self) -> tuple[list[bytes], list[bytes]]:
        """Return what `rewritten` and `changed` hold, and empty them."""
        taken = self.rewritten, self.changed
        self.rewritten, self.changed = [], []
        return taken

    def take_unproven(self) -> list[tuple[str, str, bytes]]:
        """Return what `unproven` holds, and empty it."""
        unproven, self.unproven = self.unproven, []
        return unproven

    def take_gone_rows(self) -> list[FolderRows]:
        """Return the rows of folders that were dropped since the last call."""
        gone, self._gone_rows = self._gone_rows, []
        return gone

    def take_touched(self, known: Callable[[str], Session | None] = lambda _: None) -> tuple[list[Session], list[str]]:
        """Return the sessions that changed, and the paths of those that were removed, since the last call.

        Parameters
        ----------
        known : callable
            Returns the session that this method last returned for a path, or None.
        """
        sessions = [compose(folder) for folder in self.touched]
        sessions += [
            patch_session(folder, rows, known) for folder, rows in self.patched.items() if folder not in self.touched
        ]
        dropped = sorted(self.dropped - {session.path for session in sessions}) if self.dropped else []
        self.touched, self.patched, self.dropped = set(), {}, set()
        return sessions, dropped

    def _add(self, parent: Folder, name: str, ino: int, *, is_link: bool = False) -> Folder:
        if parent.children is NO_FOLDERS:
            parent.children = {}
        child = parent.children[name] = parent.make_child(name, ino, is_link=is_link)
        if child.kind is Kind.SESSION:
            self.touched.add(child)
        return child

    def _set_problems(self, folder: Folder, problems: tuple[Problem, ...], n_ignored: int) -> None:
        self.n_ignored += n_ignored - folder.n_ignored
        folder.problems, folder.n_ignored = problems, n_ignored
        if problems:
            self.with_problems.add(folder)
        else:
            self.with_problems.discard(folder)

    def _show(self, folder: Folder, ino: int, *, is_link: bool) -> None:
        """Note that a restored folder is there; its rows stay until it is listed itself."""
        folder.entry_ino = ino
        if folder.is_link != is_link:
            folder.is_link = is_link
            self._touch(folder)
            if folder.kind < Kind.SESSION:
                self.touched.update(each for each in folder.walk() if each.kind is Kind.SESSION)

    def _set_rows(self, folder: Folder, packed: PackedFiles) -> None:
        before = folder.rows
        if before is None or not packed.names:
            folder.rows = FolderRows(shared(folder.collection), packed) if packed.names else None
            self._touch(folder)
            return
        folder.rows = FolderRows(before.folder, packed)
        session = folder.session
        if session is not None:
            self.patched.setdefault(session, {})[before.folder] = folder.rows

    def _touch(self, folder: Folder) -> None:
        session = folder.session
        if session is not None:
            self.touched.add(session)


def _are_equal(old: PackedFiles, found: PackedFiles) -> bool:
    """Tell whether a listing has nothing new, as nearly always. Comparing one by one would take 100 times as long."""
    return found.signatures == old.signatures and found.names == old.names
