-- Shards: databases with this schema, each with the journals that live there. Number 0 is the head:
-- officers, keys, lists, online wallets, funding and gateways are there alone (ADR 16).

-- Which shard this database is, and of which issuer: a wrong address is found out at the start.
CREATE TABLE shard (
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    number smallint NOT NULL CHECK (number BETWEEN 0 AND 255),
    issuer bytea NOT NULL CHECK (octet_length(issuer) = 16)
);
CREATE TRIGGER shard_append_only BEFORE UPDATE OR DELETE ON shard
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- At the head: where a journal lives, for life.
CREATE TABLE journal_home (
    journal bytea PRIMARY KEY CHECK (octet_length(journal) = 20),
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 255),
    since_ms bigint NOT NULL
);
INSERT INTO journal_home SELECT journal, 0, enrolled_ms FROM gateway;
CREATE INDEX journal_home_shard ON journal_home (shard);
CREATE TRIGGER journal_home_append_only BEFORE UPDATE OR DELETE ON journal_home
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Value on its way between two shards: one account for each other shard and each journal that sends
-- or receives, so that journals do not wait for each other. Both ends are posted by one identity.
ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_kind_check,
    DROP CONSTRAINT ledger_account_floor_of_kind;
ALTER TABLE ledger_account ADD CONSTRAINT ledger_account_kind_check CHECK (kind IN (
        'issuance', 'online', 'offline', 'transit-notes', 'transit-grants', 'suspense', 'loss',
        'between')),
    ADD CONSTRAINT ledger_account_floor_of_kind CHECK (
        kind IN ('issuance', 'suspense', 'loss', 'between') OR floor IS NOT NULL);

-- What another shard has to do, written in the transaction of its cause. `amount`: what the accounts
-- `between` here gained by the cause; the effect takes as much from those there.
CREATE TABLE shard_message (
    message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target smallint NOT NULL CHECK (target BETWEEN 0 AND 255),
    identity bytea NOT NULL CHECK (octet_length(identity) = 32),
    kind text NOT NULL,
    body bytea NOT NULL,
    currency text NOT NULL DEFAULT '',
    amount bigint NOT NULL DEFAULT 0 CHECK ((amount = 0) = (currency = '')),
    created_ms bigint NOT NULL,
    -- How often it was published, and when last; when it is known that the other shard took it.
    tries int NOT NULL DEFAULT 0,
    sent_ms bigint,
    taken_ms bigint,
    UNIQUE (target, identity)
);
CREATE INDEX shard_message_waiting ON shard_message (target, message_id) WHERE taken_ms IS NULL;
CREATE INDEX shard_message_arrival ON shard_message (target)
    WHERE taken_ms IS NULL AND kind = 'redeemed';
CREATE INDEX shard_message_done ON shard_message (taken_ms) WHERE taken_ms IS NOT NULL;

-- What was taken from other shards, written in the transaction of its effect.
CREATE TABLE shard_taken (
    source smallint NOT NULL CHECK (source BETWEEN 0 AND 255),
    identity bytea NOT NULL CHECK (octet_length(identity) = 32),
    currency text NOT NULL DEFAULT '',
    amount bigint NOT NULL DEFAULT 0,
    taken_ms bigint NOT NULL,
    PRIMARY KEY (source, identity)
);
CREATE INDEX shard_taken_when ON shard_taken (taken_ms);

-- Sums of the rows of both tables that were forgotten since.
CREATE TABLE shard_sum (
    other smallint NOT NULL,
    currency text NOT NULL,
    sent bigint NOT NULL DEFAULT 0,
    taken bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (other, currency)
);

-- A note that came in at another shard, and, there, where the journal lives that it left.
ALTER TABLE note ADD COLUMN in_shard smallint, ADD COLUMN home smallint;

-- At the head: journals of other shards that were convicted there, for list 1.
CREATE TABLE suspended_elsewhere (
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL,
    kind text NOT NULL,
    code text NOT NULL,
    listed_ms bigint,
    PRIMARY KEY (journal, epoch, kind)
);
CREATE INDEX suspended_elsewhere_unlisted ON suspended_elsewhere (journal, epoch)
    WHERE listed_ms IS NULL;

-- What officers decide is decided at the head, about entries of any shard.
ALTER TABLE entry_decision DROP CONSTRAINT entry_decision_epoch_id_fkey;
