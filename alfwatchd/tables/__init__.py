"""From rows to the two tables as ONE reads them.

Ids, columns, default revisions, what an earlier table or a database knows. Pure (pyarrow, numpy). Face: `columns`,
`rules.TableRules`, `adoption.adopt`, `row_groups`.
"""
