-- Payments inside a journal whose receipts came when their epoch had its statement: two officers may
-- have them paid out of the loss account (ADR 18).

CREATE TABLE late_payment_draft (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    closure_id bytea NOT NULL REFERENCES epoch_closure,
    -- The entry, by its leaf hash, and what it says.
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    index bigint NOT NULL,
    payee bytea NOT NULL CHECK (octet_length(payee) = 20),
    amount bigint NOT NULL CHECK (amount > 0),
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    -- What the issuer may bear of the epoch in all, where the policy's bound is not enough.
    bear_max bigint NOT NULL CHECK (bear_max >= 0),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    CONSTRAINT late_payment_draft_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT late_payment_draft_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL))
);
CREATE INDEX late_payment_draft_closure ON late_payment_draft (closure_id);
CREATE TRIGGER late_payment_draft_guard BEFORE UPDATE OR DELETE ON late_payment_draft
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms');

-- Where the journal lives, in the transaction of the transfer: what was paid, each entry once. The
-- drafts are the head's; `decided_by` is the officer's name.
CREATE TABLE late_payment (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    entry bytea NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    draft_id bytea NOT NULL UNIQUE CHECK (octet_length(draft_id) = 32),
    decided_by text NOT NULL,
    paid_ms bigint NOT NULL,
    PRIMARY KEY (journal, epoch, index, leaf)
);
CREATE TRIGGER late_payment_append_only BEFORE UPDATE OR DELETE ON late_payment
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The closure under which the epoch's claims are kept: a head that was restored may have forgotten
-- it, and close the epoch by another one. Null in rows from before.
ALTER TABLE journal_epoch ADD COLUMN stated_by bytea CHECK (octet_length(stated_by) = 32);
