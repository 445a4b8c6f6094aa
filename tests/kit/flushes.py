"""A writer of tables with a journal, and a reader that follows the journal."""

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.journal.entries import Cursor
from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from kit.tables import read_file

PLAIN = TableRules()


class FlushBox:
    """A writer with a journal, and a reader who follows the journal only."""

    def __init__(self, folder):
        self.out_dir, self.state_dir = folder / "out", folder / "state"
        for each in (self.out_dir, self.state_dir):
            each.mkdir()
        self.cursor, self.rows = Cursor("", 0), {}
        self.n_fresh = 0
        self.begin()

    def begin(self, *, layout=True):
        self.journal = Journal(self.state_dir, Bounds())
        place = self.state_dir / "layout" if layout else None
        self.writer = TableWriter(self.out_dir, "/data", place, journal=self.journal)

    def restart(self, **made):
        self.writer.close()
        self.begin(**made)

    def write(self, rows, rules=PLAIN):
        return self.writer.write(rows, rules).generation

    def on_disk(self):
        """Return path -> all that the tables say of a session."""
        sessions = read_file(self.out_dir / SESSIONS).to_pylist()
        datasets = {}
        for row in read_file(self.out_dir / DATASETS).to_pylist():
            datasets.setdefault(row["eid"], []).append(tuple(sorted((key, str(row[key])) for key in row)))
        return {
            f"{row['subject']}/{row['date']}/{row['number']:03d}": (row, sorted(datasets.get(row["id"], [])))
            for row in sessions
        }

    def follow(self, limit=3):
        """Take over only what the journal names, and everything where it says so."""
        now = self.on_disk()
        while True:
            page = self.journal.feed.page(self.cursor, limit)
            if page.is_fresh:
                self.rows, self.n_fresh = dict(now), self.n_fresh + 1
            for told in page.told:
                self.rows.pop(told.change.path, None)
                if told.change.kind != "removed":
                    self.rows[told.change.path] = now[told.change.path]
            self.cursor = page.next
            if page.is_last:
                return now
