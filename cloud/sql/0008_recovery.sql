-- Gateways that are lost or replaced: epochs closed under four eyes, what holders claim, and the
-- statements that open the next epochs.

ALTER TABLE gateway DROP CONSTRAINT gateway_state_check;
ALTER TABLE gateway ADD CONSTRAINT gateway_state_check
    CHECK (state IN ('active', 'suspended', 'closed'));

-- When the epoch's statement was signed: of what comes later, nothing is in it.
ALTER TABLE journal_epoch ADD COLUMN stated_ms bigint;

-- Whether the gateway keeps the wallet's key: with a lost gateway, such a key is lost as well.
ALTER TABLE wallet_enrolment ADD COLUMN hosted boolean NOT NULL DEFAULT false;

CREATE TABLE epoch_closure (
    closure_id bytea PRIMARY KEY CHECK (octet_length(closure_id) = 32),
    journal bytea NOT NULL REFERENCES gateway,
    epoch bigint NOT NULL CHECK (epoch >= 0),
    cause text NOT NULL CHECK (cause IN ('planned', 'lost', 'compromised', 'migrated')),
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'closed', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    claims_until_ms bigint,
    -- The journal that opens with this closure's statement, once its gateway has enrolled.
    successor bytea CHECK (octet_length(successor) = 20),
    CONSTRAINT epoch_closure_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT epoch_closure_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL)
        AND (state = 'closed') = (claims_until_ms IS NOT NULL))
);
-- An epoch is closed once.
CREATE UNIQUE INDEX epoch_closure_place ON epoch_closure (journal, epoch) WHERE state <> 'rejected';

-- What an epoch came to. Amounts are sums in minor units; `outcome` is the SHA-256 of all of it, so
-- that the second officer approves what the first one saw.
CREATE TABLE epoch_statement (
    statement_id bytea PRIMARY KEY CHECK (octet_length(statement_id) = 32),
    closure_id bytea NOT NULL REFERENCES epoch_closure,
    hosted text NOT NULL CHECK (hosted IN ('carry', 'online')),
    outcome bytea NOT NULL CHECK (octet_length(outcome) = 32),
    carried bigint NOT NULL CHECK (carried >= 0),
    paid_out bigint NOT NULL CHECK (paid_out >= 0),
    borne bigint NOT NULL CHECK (borne >= 0),
    counted int NOT NULL,
    refused int NOT NULL,
    drafted_by bigint NOT NULL REFERENCES officer,
    drafted_ms bigint NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'signed', 'rejected')),
    decided_by bigint REFERENCES officer,
    decided_ms bigint,
    object bytea,
    CONSTRAINT epoch_statement_four_eyes CHECK (decided_by <> drafted_by),
    CONSTRAINT epoch_statement_decided CHECK (
        (state = 'draft') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_ms IS NULL)
        AND (state = 'signed') = (object IS NOT NULL))
);
CREATE UNIQUE INDEX epoch_statement_signed ON epoch_statement (closure_id) WHERE state = 'signed';

-- What became of each claim when the statement was signed; no code where it counts.
CREATE TABLE epoch_claim (
    closure_id bytea NOT NULL REFERENCES epoch_closure,
    index bigint NOT NULL,
    leaf bytea NOT NULL CHECK (octet_length(leaf) = 32),
    entry bytea NOT NULL,
    code text,
    PRIMARY KEY (closure_id, index, leaf)
);
CREATE TRIGGER epoch_claim_append_only BEFORE UPDATE OR DELETE ON epoch_claim
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A token that enrols the gateway which goes on where a closure ended.
ALTER TABLE enrolment_token ADD COLUMN closure_id bytea REFERENCES epoch_closure;
