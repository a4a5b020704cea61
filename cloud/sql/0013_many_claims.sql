-- Closed epochs with any number of claims: what a draft of a statement judged can be read by pages.

CREATE TABLE statement_claim (
    statement_id bytea NOT NULL REFERENCES epoch_statement,
    -- In the order in which they were judged, from 0.
    place bigint NOT NULL CHECK (place >= 0),
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    kind smallint NOT NULL,
    amount bigint NOT NULL,
    code text,
    PRIMARY KEY (statement_id, place)
);
CREATE TRIGGER statement_claim_append_only BEFORE UPDATE OR DELETE ON statement_claim
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- All wallets may be paid out: a statement that carries nobody is small, however many there were.
ALTER TABLE epoch_statement DROP CONSTRAINT epoch_statement_hosted_check;
ALTER TABLE epoch_statement ADD CONSTRAINT epoch_statement_hosted_check
    CHECK (hosted IN ('carry', 'online', 'everybody'));

-- Wallets of a closed epoch are enrolled in the journal that goes on a turn at a time, in their
-- order: up to which one that was done.
ALTER TABLE epoch_closure ADD COLUMN carried_to bytea;
