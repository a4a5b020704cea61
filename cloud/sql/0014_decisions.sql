-- Entries that compliance holds: one officer proposes what is to become of each, another decides.

CREATE TABLE entry_decision (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    epoch_id bigint NOT NULL REFERENCES journal_epoch,
    index bigint NOT NULL CHECK (index >= 0),
    -- `release`: the entry is settled. `reject`: its payee does not keep what it brought.
    action text NOT NULL CHECK (action IN ('release', 'reject')),
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    CONSTRAINT entry_decision_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT entry_decision_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL))
);
-- An entry is decided once.
CREATE UNIQUE INDEX entry_decision_place ON entry_decision (epoch_id, index)
    WHERE state = 'approved';
CREATE INDEX verdict_held ON verdict (epoch_id, index) WHERE state = 'held';

-- A draft is decided once, and its words never change. The arguments are what a decision fills.
CREATE FUNCTION draft_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'draft'
        OR (to_jsonb(OLD) - TG_ARGV) IS DISTINCT FROM (to_jsonb(NEW) - TG_ARGV)
    THEN
        RAISE EXCEPTION 'a draft is decided once' USING ERRCODE = 'CB009';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER entry_decision_guard BEFORE UPDATE OR DELETE ON entry_decision
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms');

-- What rejected entries had brought and their payees still had, when the epoch was closed.
ALTER TABLE epoch_statement
    ADD COLUMN taken_back bigint NOT NULL DEFAULT 0 CHECK (taken_back >= 0);
