"""The two Parquet files: read safely whichever program wrote them, replaced whole or by row group.

Never replaced while a reader is between them; each changed id is recorded first. Face: `writer.TableWriter`, `reader`,
`flusher.Flusher`, `id_history`.
"""
