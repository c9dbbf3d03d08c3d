-- The sessions that were signed out of, for as long as they would last; `expires_at` is in seconds since 1970.
CREATE TABLE ended_session (
    id TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
