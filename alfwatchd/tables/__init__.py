"""From rows to the two tables as ONE reads them.

It knows ids, columns, default revisions, and what an earlier table or a database adds. **Pure (pyarrow, numpy): it
opens no file.** Face: `columns`, `rules.TableRules`, `known_columns.KnownColumns`, `adoption.adopt`, `row_groups`.
"""
