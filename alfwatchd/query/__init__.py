"""Answers questions from the tables on disk, whichever program wrote them: sessions, their datasets, a report.

It needs no daemon and no pandas. **It reads one generation, and writes nothing.** A dataset that is not here
(`exists` is false) counts nowhere. Face: `tables.open_tables`, `conditions.Conditions`, `sessions.find_sessions`,
`datasets.list_datasets`, `report.make_report`.
"""
