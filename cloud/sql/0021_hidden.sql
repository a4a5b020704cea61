-- Entries that a journal gave receipts for and hides: what their holders are owed.

-- Receipts of entries at whose index the journal tells of another one. Each convicts, and is a claim
-- when the epoch is closed.
CREATE TABLE hidden_receipt (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    entry bytea NOT NULL,
    receipt bytea NOT NULL,
    found_ms bigint NOT NULL,
    PRIMARY KEY (journal, epoch, index, leaf)
);
CREATE TRIGGER hidden_receipt_append_only BEFORE UPDATE OR DELETE ON hidden_receipt
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Notes at whose index the journal that they left tells of another entry: borne once, where they came
-- in. The table `note` has the entry that the journal tells of, and the value in transit is its.
CREATE TABLE hidden_note (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    in_journal bytea NOT NULL,
    in_epoch bigint NOT NULL,
    in_index bigint NOT NULL,
    PRIMARY KEY (journal, epoch, index, leaf)
);
CREATE TRIGGER hidden_note_append_only BEFORE UPDATE OR DELETE ON hidden_note
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
