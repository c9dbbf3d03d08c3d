-- Traces that everyone may read.
CREATE TABLE shared_trace (
    organization_id TEXT NOT NULL,
    trace_unique_id TEXT NOT NULL,
    PRIMARY KEY (organization_id, trace_unique_id)
) WITHOUT ROWID;

-- What was said of a user besides spans. Users themselves come from traffic: a deleted one comes back with the next span.
CREATE TABLE customer (
    organization_id TEXT NOT NULL,
    environment TEXT NOT NULL,
    customer_identifier TEXT NOT NULL,
    name TEXT,
    email TEXT,
    metadata TEXT,
    period_budget REAL,
    budget_duration TEXT,
    total_budget REAL,
    period_start TEXT,
    period_end TEXT,
    markup_percentage REAL,
    updated_at TEXT,
    -- Spans up to this place in the journal are not of the user that there is now.
    deleted_seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, environment, customer_identifier)
) WITHOUT ROWID;
