-- Lost grants are closed by two officers: what is short in suspense is taken from the online wallet
-- that has the value once more, as far as they say, and the issuer bears the rest.

CREATE TABLE lost_grant_closing (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    journal bytea NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    wallet text REFERENCES online_wallet,
    -- Minor units out of the wallet; the rest of the grant is the issuer's loss.
    taken bigint NOT NULL CHECK (taken >= 0),
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    FOREIGN KEY (journal, epoch, sequence) REFERENCES lost_grant,
    CONSTRAINT lost_grant_closing_source CHECK ((wallet IS NULL) = (taken = 0)),
    CONSTRAINT lost_grant_closing_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT lost_grant_closing_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL))
);
-- A lost grant is closed once.
CREATE UNIQUE INDEX lost_grant_closing_grant ON lost_grant_closing (journal, epoch, sequence)
    WHERE state = 'approved';
CREATE TRIGGER lost_grant_closing_guard BEFORE UPDATE OR DELETE ON lost_grant_closing
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms');
