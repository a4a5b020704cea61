-- Officers, what they did, the supply they decide about, and the issuer's sealed keys.

CREATE TABLE officer (
    officer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    -- SHA-256 of a random token of 256 bits: nothing to guess, so nothing to stretch.
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    roles text[] NOT NULL,
    created_ms bigint NOT NULL,
    disabled_ms bigint
);

-- Each row's hash covers the row before it: a row that is changed or taken out shows.
CREATE TABLE audit_log (
    sequence bigint PRIMARY KEY,
    at_ms bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_log_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE supply_draft (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    action text NOT NULL CHECK (action IN ('issue', 'burn')),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    account_id bigint NOT NULL REFERENCES ledger_account,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'posted', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    CONSTRAINT supply_draft_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT supply_draft_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL))
);

-- A draft is decided once, and its words never change.
CREATE FUNCTION supply_draft_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'draft'
        OR (OLD.draft_id, OLD.action, OLD.currency, OLD.amount, OLD.account_id, OLD.reason,
            OLD.drafted_by, OLD.drafted_ms)
        IS DISTINCT FROM
           (NEW.draft_id, NEW.action, NEW.currency, NEW.amount, NEW.account_id, NEW.reason,
            NEW.drafted_by, NEW.drafted_ms)
    THEN
        RAISE EXCEPTION 'a draft is decided once' USING ERRCODE = 'CB009';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER supply_draft_guard BEFORE UPDATE OR DELETE ON supply_draft
    FOR EACH ROW EXECUTE FUNCTION supply_draft_guard();

-- Private keys of the issuer, sealed; the newest of a name is in use. Some have no certificate.
CREATE TABLE issuer_key (
    key_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    sealed bytea NOT NULL,
    certificate bytea,
    not_after_ms bigint NOT NULL,
    created_ms bigint NOT NULL
);
CREATE INDEX issuer_key_name ON issuer_key (name, key_id DESC);

-- Every certificate that was issued: what may be revoked.
CREATE TABLE issued_certificate (
    serial bytea PRIMARY KEY CHECK (octet_length(serial) BETWEEN 1 AND 20),
    purpose text NOT NULL,
    subject text NOT NULL,
    certificate bytea NOT NULL,
    not_after_ms bigint NOT NULL,
    issued_ms bigint NOT NULL
);
CREATE INDEX issued_certificate_subject ON issued_certificate (subject, issued_ms DESC);
