-- What an issuer that was restored from an older backup learns from the journals: its own signed
-- words, which it does not remember.

-- Lists that entries name. `merged`: the list in force says at least as much as this one.
CREATE TABLE recovered_list (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    list_id int NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    object bytea NOT NULL,
    found_ms bigint NOT NULL,
    merged boolean NOT NULL DEFAULT false
);
CREATE INDEX recovered_list_open ON recovered_list (list_id) WHERE NOT merged;

-- Grants that a journal has entered, for which no online wallet is known to have paid. The value is
-- in the journal, and as much is missing in the journal's suspense account: a person has to find
-- the holder.
CREATE TABLE lost_grant (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    offline_wallet bytea NOT NULL CHECK (octet_length(offline_wallet) = 20),
    amount bigint NOT NULL,
    currency text NOT NULL,
    grant_cose bytea NOT NULL,
    found_ms bigint NOT NULL,
    PRIMARY KEY (journal, epoch, sequence)
);
CREATE TRIGGER lost_grant_append_only BEFORE UPDATE OR DELETE ON lost_grant
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
