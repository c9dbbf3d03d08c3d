-- How far those who follow the journal have come.
CREATE TABLE follower (
    name TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) WITHOUT ROWID;
