-- Claims that officers refuse: they do not count, and stay as evidence with the reason.

CREATE TABLE claim_refusal (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    closure_id bytea NOT NULL REFERENCES epoch_closure,
    -- The claim, by its entry's leaf hash.
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    CONSTRAINT claim_refusal_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT claim_refusal_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL))
);
CREATE INDEX claim_refusal_closure ON claim_refusal (closure_id);
CREATE TRIGGER claim_refusal_guard BEFORE UPDATE OR DELETE ON claim_refusal
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms');
