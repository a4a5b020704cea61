-- Epochs of journals that live at other shards than the head are closed, and get their statements,
-- where the journal lives. What was carried out there is kept there in the same transaction: were
-- the head's own to fail, it would learn from here what was decided (ADR 16).

-- `decided_by`: the officer's name. `window_s`: how long claims are awaited.
CREATE TABLE ended_epoch (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    closure_id bytea NOT NULL CHECK (octet_length(closure_id) = 32),
    decided_by text NOT NULL,
    claims_until_ms bigint NOT NULL,
    window_s bigint NOT NULL,
    PRIMARY KEY (journal, epoch)
);

-- The columns are those of epoch_statement.
CREATE TABLE stated_epoch (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    statement_id bytea NOT NULL CHECK (octet_length(statement_id) = 32),
    hosted text NOT NULL,
    outcome bytea NOT NULL CHECK (octet_length(outcome) = 32),
    carried bigint NOT NULL,
    paid_out bigint NOT NULL,
    taken_back bigint NOT NULL,
    borne bigint NOT NULL,
    counted int NOT NULL,
    refused int NOT NULL,
    decided_by text NOT NULL,
    object bytea NOT NULL,
    PRIMARY KEY (journal, epoch)
);
CREATE TRIGGER stated_epoch_append_only BEFORE UPDATE OR DELETE ON stated_epoch
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Claims are kept where the journal lives, closures at the head.
ALTER TABLE epoch_claim DROP CONSTRAINT epoch_claim_closure_id_fkey;

-- What has to be heard before something is final: how old the oldest of it is.
DROP INDEX shard_message_arrival;
CREATE INDEX shard_message_news ON shard_message (target, kind, created_ms)
    WHERE taken_ms IS NULL;
-- Notes that came into an epoch from other shards, whose fate is not known here.
CREATE INDEX note_came_from_elsewhere ON note (in_journal, in_epoch)
    WHERE state = 'early' AND home IS NOT NULL;
