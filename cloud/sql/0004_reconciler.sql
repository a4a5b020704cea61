-- What the journals reported: entries, checkpoints, notes between them, verdicts and settlements.

CREATE TABLE journal_epoch (
    epoch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL CHECK (epoch >= 0),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed', 'suspended')),
    -- The code of what it was suspended for.
    reason text,
    currency text CHECK (currency ~ '^[A-Z]{3}$'),
    -- Entries held, and how many of them the rules accepted: fewer only after a violation.
    size bigint NOT NULL DEFAULT 0,
    applied bigint NOT NULL DEFAULT 0 CHECK (applied <= size),
    root bytea CHECK (octet_length(root) = 32),
    counter bigint NOT NULL DEFAULT 0,
    checkpoint bytea,
    opened_ms bigint NOT NULL,
    changed_ms bigint NOT NULL,
    UNIQUE (journal, epoch),
    CHECK ((state = 'suspended') = (reason IS NOT NULL))
);
-- One epoch of a journal at a time.
CREATE UNIQUE INDEX journal_epoch_open ON journal_epoch (journal) WHERE state = 'open';

-- A segment as it came: entries first, first + 1, ... and the checkpoint that covers all of them.
CREATE TABLE journal_segment (
    epoch_id bigint NOT NULL REFERENCES journal_epoch,
    first bigint NOT NULL CHECK (first >= 0),
    size bigint NOT NULL CHECK (size > first),
    entries bytea[] NOT NULL CHECK (cardinality(entries) = size - first),
    -- Leaf hashes, 32 bytes each: payments are found by them, and evidence is made of them.
    leaves bytea NOT NULL CHECK (octet_length(leaves) = 32 * (size - first)),
    checkpoint bytea NOT NULL,
    received_ms bigint NOT NULL,
    PRIMARY KEY (epoch_id, first)
);
-- Signatures and hashes do not compress: PostgreSQL need not try.
ALTER TABLE journal_segment ALTER COLUMN entries SET STORAGE EXTERNAL;
ALTER TABLE journal_segment ALTER COLUMN leaves SET STORAGE EXTERNAL;
CREATE TRIGGER journal_segment_append_only BEFORE UPDATE OR DELETE ON journal_segment
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_segment_not_truncated BEFORE TRUNCATE ON journal_segment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE VIEW journal_entry AS
    SELECT epoch_id, journal, epoch, first + position - 1 AS index, entry
    FROM journal_segment JOIN journal_epoch USING (epoch_id),
        LATERAL unnest(entries) WITH ORDINALITY AS part (entry, position);

-- The newest replica of a state: a start reads it and the segments after it.
CREATE TABLE journal_snapshot (
    epoch_id bigint PRIMARY KEY REFERENCES journal_epoch,
    size bigint NOT NULL,
    snapshot bytea NOT NULL
);

-- Notes by the transfer-out that they are. `early`: redeemed, and its own journal has not told yet.
-- `compensated`: redeemed, and paid from the loss account.
CREATE TABLE note (
    journal bytea NOT NULL,
    epoch bigint NOT NULL,
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    state text NOT NULL
        CHECK (state IN ('out', 'early', 'redeemed', 'returned', 'compensated')),
    payer bytea NOT NULL,
    payee_journal bytea NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    expires_ms bigint NOT NULL,
    -- From then on it goes back to the payer; null where the policy sets no claims window.
    returns_ms bigint,
    in_journal bytea,
    in_epoch bigint,
    in_index bigint,
    -- Entry and receipt, for as long as its own journal has not told.
    entry bytea,
    receipt bytea,
    PRIMARY KEY (journal, epoch, index)
);
CREATE INDEX note_returning ON note (returns_ms) WHERE state = 'out';

-- Entries that are not simply settled. `settled`: they were named before and no longer are.
CREATE TABLE verdict (
    epoch_id bigint NOT NULL REFERENCES journal_epoch,
    index bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('held', 'pending', 'rejected', 'settled')),
    code text NOT NULL,
    decided_ms bigint NOT NULL,
    -- Whether a settlement was signed since.
    told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (epoch_id, index)
);
CREATE INDEX verdict_named ON verdict (epoch_id, index) WHERE state <> 'settled';
CREATE INDEX verdict_untold ON verdict (epoch_id) WHERE NOT told;

CREATE TABLE settlement (
    settlement_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch_id bigint NOT NULL REFERENCES journal_epoch,
    size bigint NOT NULL,
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    time_ms bigint NOT NULL,
    object bytea NOT NULL,
    UNIQUE (epoch_id, size, time_ms)
);

-- Receipts of a journal's entries that others handed in, until the journal tells of them itself.
CREATE TABLE collected_receipt (
    journal bytea NOT NULL,
    epoch bigint NOT NULL,
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    entry bytea NOT NULL,
    receipt bytea NOT NULL,
    received_ms bigint NOT NULL,
    PRIMARY KEY (journal, epoch, index, leaf)
);

-- What convicts a journal, kept for ever. `parts`: evidence of a fork where there is one, else
-- what was sent.
CREATE TABLE journal_evidence (
    evidence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch_id bigint NOT NULL REFERENCES journal_epoch,
    kind text NOT NULL,
    code text NOT NULL,
    index bigint,
    parts bytea[] NOT NULL,
    found_ms bigint NOT NULL
);
CREATE TRIGGER journal_evidence_append_only BEFORE UPDATE OR DELETE ON journal_evidence
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What happened, for those who act on it: written with the event, read in order, then removed.
CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    body jsonb NOT NULL,
    created_ms bigint NOT NULL
);
