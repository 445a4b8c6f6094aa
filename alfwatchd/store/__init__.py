"""The two Parquet files: read safely whichever program wrote them, replaced whole or by row group.

**A reader that has opened one file is given time to open the other before that is replaced, and each changed id is
recorded before the tables have it.** Face: `writer.TableWriter`, `reader`, `flusher.Flusher`, `id_history`.
"""
