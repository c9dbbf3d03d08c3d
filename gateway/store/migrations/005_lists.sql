-- For walks through lists, which show what was there in the order that it had: where the journal stood when a call that
-- had been open was settled or closed, and when late counts came.
ALTER TABLE span ADD COLUMN settled_seq INTEGER;
ALTER TABLE span ADD COLUMN counted_seq INTEGER;
UPDATE span SET settled_seq = seq WHERE seq <> id;

-- Few spans have these: who does not use them does not pay for them.
CREATE INDEX span_of_trace ON span (organization_id, trace_unique_id, timestamp) WHERE trace_unique_id IS NOT NULL;
CREATE INDEX span_of_thread ON span (organization_id, thread_identifier, timestamp) WHERE thread_identifier IS NOT NULL;
CREATE INDEX span_of_customer ON span (organization_id, customer_identifier, timestamp)
WHERE customer_identifier IS NOT NULL;

-- Who follows the journal learns here what is gone. Deleted spans stay accounted for.
CREATE TABLE tombstone (
    seq INTEGER PRIMARY KEY,
    organization_id TEXT NOT NULL,
    unique_id TEXT NOT NULL
);
CREATE TABLE ledger_of_all (
    organization_id TEXT NOT NULL,
    minute TEXT NOT NULL,
    entry TEXT NOT NULL
    CHECK (entry IN ('accepted', 'dropped', 'posted', 'repeated', 'refused', 'deleted_calls', 'deleted_posts')),
    number INTEGER NOT NULL,
    PRIMARY KEY (organization_id, minute, entry)
) WITHOUT ROWID;
INSERT INTO ledger_of_all SELECT organization_id, minute, entry, number FROM ledger;
DROP TABLE ledger;
ALTER TABLE ledger_of_all RENAME TO ledger;
