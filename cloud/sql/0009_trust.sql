-- What gateways' proofs of their hardware are held against: the roots of makers of TPMs, and the
-- measurements of images. One officer drafts, another approves; either may withdraw, which can only
-- make fewer proofs pass.

CREATE TABLE trust_draft (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    kind text NOT NULL CHECK (kind IN ('maker', 'image')),
    -- What the content says of itself, for people.
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 400),
    content bytea NOT NULL CHECK (octet_length(content) BETWEEN 1 AND 16384),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft'
        CHECK (state IN ('draft', 'approved', 'rejected', 'withdrawn')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    withdrawn_by bigint REFERENCES officer,
    withdrawn_ms bigint,
    CONSTRAINT trust_draft_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT trust_draft_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL)),
    CONSTRAINT trust_draft_withdrawn CHECK (
        (state = 'withdrawn') = (withdrawn_by IS NOT NULL)
        AND (withdrawn_by IS NULL) = (withdrawn_ms IS NULL))
);
CREATE INDEX trust_draft_in_force ON trust_draft (kind) WHERE state = 'approved';

-- A draft is decided once, may be withdrawn after that, and its words never change.
CREATE FUNCTION trust_draft_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE'
        OR NOT (OLD.state = 'draft' OR (OLD.state = 'approved' AND NEW.state = 'withdrawn'
            AND (OLD.decided_by, OLD.decided_ms) = (NEW.decided_by, NEW.decided_ms)))
        OR (OLD.draft_id, OLD.kind, OLD.name, OLD.content, OLD.drafted_by, OLD.drafted_ms)
        IS DISTINCT FROM
           (NEW.draft_id, NEW.kind, NEW.name, NEW.content, NEW.drafted_by, NEW.drafted_ms)
    THEN
        RAISE EXCEPTION 'a draft is decided once' USING ERRCODE = 'CB009';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER trust_draft_guard BEFORE UPDATE OR DELETE ON trust_draft
    FOR EACH ROW EXECUTE FUNCTION trust_draft_guard();
