-- Gateways and their enrolment, what the issuer signs for everybody, holders, and stored answers.

CREATE TABLE enrolment_token (
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    -- Tiers of wallets that the gateway may enrol without asking an officer.
    tiers int[] NOT NULL,
    made_by text NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    journal bytea CHECK (octet_length(journal) = 20)
);

CREATE TABLE gateway (
    journal bytea PRIMARY KEY CHECK (octet_length(journal) = 20),
    name text NOT NULL,
    currency text NOT NULL,
    tiers int[] NOT NULL,
    epoch bigint NOT NULL CHECK (epoch >= 0),
    -- COSE_Key of the journal; HPKE (X25519) key that answers are sealed to.
    cose_key bytea NOT NULL,
    hpke_key bytea NOT NULL CHECK (octet_length(hpke_key) = 32),
    leaf bytea NOT NULL,
    authority bytea NOT NULL,
    transport_certificate bytea NOT NULL,
    hosted_tier int,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
    enrolled_ms bigint NOT NULL,
    seen_ms bigint
);

-- What the issuer signs for all gateways: policies, lists, its own keys. Series are numbered.
CREATE TABLE issued_object (
    series text NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    object bytea NOT NULL,
    is_full boolean NOT NULL,
    issued_ms bigint NOT NULL,
    PRIMARY KEY (series, sequence)
);
CREATE TRIGGER issued_object_append_only BEFORE UPDATE OR DELETE ON issued_object
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE policy_draft (
    draft_id bytea PRIMARY KEY CHECK (octet_length(draft_id) = 32),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    content text NOT NULL,
    valid_days int NOT NULL CHECK (valid_days BETWEEN 1 AND 3650),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'signed', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    sequence bigint,
    CONSTRAINT policy_draft_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT policy_draft_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (state = 'signed') = (sequence IS NOT NULL))
);

-- Wallets in journals. The newest enrolment of a wallet counts; it travels until it is applied.
CREATE TABLE wallet_enrolment (
    enrolment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal bytea NOT NULL REFERENCES gateway,
    wallet bytea NOT NULL CHECK (octet_length(wallet) = 20),
    cose_key bytea NOT NULL,
    tier int NOT NULL CHECK (tier >= 0),
    label text,
    object bytea NOT NULL,
    expires_ms bigint NOT NULL,
    made_by text NOT NULL,
    created_ms bigint NOT NULL,
    applied boolean NOT NULL DEFAULT false
);
CREATE INDEX wallet_enrolment_wallet ON wallet_enrolment (journal, wallet, enrolment_id DESC);
CREATE INDEX wallet_enrolment_open ON wallet_enrolment (journal, enrolment_id) WHERE NOT applied;

-- Wallets that a gateway asks for, where an officer has to decide.
CREATE TABLE enrolment_wish (
    wish_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal bytea NOT NULL REFERENCES gateway,
    wallet bytea NOT NULL CHECK (octet_length(wallet) = 20),
    cose_key bytea NOT NULL,
    tier int NOT NULL,
    label text,
    hosted boolean NOT NULL,
    asked_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'enrolled', 'refused')),
    UNIQUE (journal, wallet)
);

-- Who holds online wallets, known by a token that is derived from a secret of the vault.
CREATE TABLE holder (
    holder text PRIMARY KEY CHECK (length(holder) BETWEEN 1 AND 64),
    generation bigint NOT NULL DEFAULT 0,
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    created_ms bigint NOT NULL
);

-- Answers by Idempotency-Key. The row is written in the transaction of the work itself.
CREATE TABLE api_answer (
    scope text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    status int NOT NULL,
    answer bytea NOT NULL,
    expires_ms bigint NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX api_answer_expires ON api_answer (expires_ms);
