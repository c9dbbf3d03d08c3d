-- The links that have signed someone in, so that none does twice; `expires_at` is in seconds since 1970.
CREATE TABLE used_link (
    nonce TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
