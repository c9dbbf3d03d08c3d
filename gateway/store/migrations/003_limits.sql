-- What the calls of limited keys use up. Kept here so that workers share it and a restart does not forget it.

-- A call that was admitted and has not ended. `running` = 0: it has ended, and its cost is still being counted.
CREATE TABLE reservation (
    unique_id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    day TEXT NOT NULL,
    running INTEGER NOT NULL,
    picos INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX reservation_of_key ON reservation (organization_id, key_name);

-- Calls that were admitted, by the second (Unix time), for the last minute.
CREATE TABLE admission (
    organization_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    second INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (organization_id, key_name, second)
) WITHOUT ROWID;

-- What the calls that began on a day (UTC) cost, in units of 1e-12 USD.
CREATE TABLE spending (
    organization_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    day TEXT NOT NULL,
    picos INTEGER NOT NULL,
    PRIMARY KEY (organization_id, key_name, day)
) WITHOUT ROWID;
