"""The SQLite file: one writer, readers on their own connections."""
