-- Who may decide what is decided by two as well: one administrator alone could make the second
-- officer that every other decision asks for.

CREATE TABLE officer_draft (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    -- How the officer will be. Without a token's hash the token stays what it is.
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    roles text[] NOT NULL CHECK (cardinality(roles) > 0),
    token_hash bytea CHECK (octet_length(token_hash) = 32),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    CONSTRAINT officer_draft_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT officer_draft_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL))
);

-- A draft is decided once, and its words never change.
CREATE FUNCTION officer_draft_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'draft'
        OR (OLD.draft_id, OLD.name, OLD.roles, OLD.token_hash, OLD.drafted_by, OLD.drafted_ms)
        IS DISTINCT FROM
           (NEW.draft_id, NEW.name, NEW.roles, NEW.token_hash, NEW.drafted_by, NEW.drafted_ms)
    THEN
        RAISE EXCEPTION 'a draft is decided once' USING ERRCODE = 'CB009';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER officer_draft_guard BEFORE UPDATE OR DELETE ON officer_draft
    FOR EACH ROW EXECUTE FUNCTION officer_draft_guard();
