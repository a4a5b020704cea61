-- The double-entry ledger. A transfer takes `amount` from the debit account and gives it to the
-- credit account; the sum of all balances of one currency is therefore always zero.

CREATE TABLE ledger_account (
    account_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    kind text NOT NULL CHECK (kind IN (
        'issuance', 'online', 'offline', 'transit-notes', 'transit-grants', 'suspense', 'loss')),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    balance bigint NOT NULL DEFAULT 0,
    -- The balance may not fall below it; null where it may fall without an end.
    floor bigint,
    CONSTRAINT ledger_account_floor CHECK (floor IS NULL OR balance >= floor),
    -- Supply, unmatched arrivals and losses go negative; what somebody owns never does.
    CONSTRAINT ledger_account_floor_of_kind CHECK (
        kind IN ('issuance', 'suspense', 'loss') OR floor IS NOT NULL)
) WITH (fillfactor = 50);  -- Balances change in place (HOT), since no index holds them.

-- The accounts are not foreign keys: ledger_post, the one writer, has locked both of them.
CREATE TABLE ledger_transfer (
    transfer_id bigint GENERATED ALWAYS AS IDENTITY,
    identity bytea NOT NULL CHECK (octet_length(identity) = 32),
    debit bigint NOT NULL,
    credit bigint NOT NULL CHECK (credit <> debit),
    amount bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    kind smallint NOT NULL CHECK (kind >= 0),
    currency text NOT NULL,
    reference text CHECK (length(reference) <= 200),
    created_ms bigint NOT NULL CHECK (created_ms >= 0),
    record bytea,
    CONSTRAINT ledger_transfer_identity PRIMARY KEY (identity)
);

-- Statements of online wallets. Kinds from 100 on happen inside journals: their statement is the
-- journal, and they are by far the most, so that no index is kept for them.
CREATE INDEX ledger_transfer_debit ON ledger_transfer (debit, transfer_id) WHERE kind < 100;
CREATE INDEX ledger_transfer_credit ON ledger_transfer (credit, transfer_id) WHERE kind < 100;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME USING ERRCODE = 'CB009';
END $$;

CREATE TRIGGER ledger_transfer_append_only BEFORE UPDATE OR DELETE ON ledger_transfer
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_transfer_not_truncated BEFORE TRUNCATE ON ledger_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Posts transfers of one currency, each identity once, and answers how many were new.
-- 1. The accounts are locked in the order of their numbers, so that posters wait and never deadlock.
-- 2. New identities are inserted (a plain insert costs a third less than ON CONFLICT); 3. their net
-- effect changes each balance once, and the floor is checked on the net; 4. an identity that was
-- there must say the same as before. 5. Where an identity came twice in the batch, or from another
-- poster meanwhile, the work of 2 and 3 is undone and done again with each identity once.
CREATE FUNCTION ledger_post(
    p_currency text, p_identities bytea[], p_debits bigint[], p_credits bigint[],
    p_amounts bigint[], p_kinds smallint[], p_references text[], p_created_ms bigint,
    p_records bytea[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint[] := ARRAY(
        SELECT account_id FROM unnest(p_debits || p_credits) AS t (account_id)
        GROUP BY account_id ORDER BY account_id);
    found bigint;
    foreign_found bigint;
    inserted bigint;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE currency <> p_currency) INTO found, foreign_found
    FROM (SELECT currency FROM ledger_account WHERE account_id = ANY (wanted)
          ORDER BY account_id FOR NO KEY UPDATE) AS locked;
    IF found <> cardinality(wanted) THEN
        RAISE EXCEPTION 'an account does not exist' USING ERRCODE = 'CB002';
    ELSIF foreign_found > 0 THEN
        RAISE EXCEPTION 'an account is not of the currency' USING ERRCODE = 'CB003';
    END IF;

    WITH fresh AS (
        INSERT INTO ledger_transfer
            (identity, debit, credit, amount, kind, currency, reference, created_ms, record)
        SELECT t.identity, t.debit, t.credit, t.amount, t.kind, p_currency, t.reference,
               p_created_ms, t.record
        FROM unnest(p_identities, p_debits, p_credits, p_amounts, p_kinds, p_references, p_records)
            AS t (identity, debit, credit, amount, kind, reference, record)
        WHERE NOT EXISTS (SELECT FROM ledger_transfer AS known WHERE known.identity = t.identity)
        RETURNING debit, credit, amount
    ), net AS (
        SELECT side.account_id, sum(side.change)::bigint AS change
        FROM fresh, LATERAL (VALUES (debit, -amount), (credit, amount)) AS side (account_id, change)
        GROUP BY side.account_id
    ), changed AS (
        UPDATE ledger_account AS account SET balance = account.balance + net.change
        FROM net WHERE account.account_id = net.account_id AND net.change <> 0
    )
    SELECT count(*) INTO inserted FROM fresh;

    IF inserted < cardinality(p_identities) AND EXISTS (
        SELECT FROM unnest(
            p_identities, p_debits, p_credits, p_amounts, p_kinds, p_references, p_records)
            AS t (identity, debit, credit, amount, kind, reference, record)
        JOIN ledger_transfer AS known USING (identity)
        WHERE (known.debit, known.credit, known.amount, known.kind, known.currency)
                <> (t.debit, t.credit, t.amount, t.kind, p_currency)
            OR known.reference IS DISTINCT FROM t.reference
            OR known.record IS DISTINCT FROM t.record
    ) THEN
        RAISE EXCEPTION 'an identity was used for another transfer' USING ERRCODE = 'CB001';
    END IF;
    RETURN inserted;
EXCEPTION WHEN unique_violation THEN
    RETURN ledger_post_distinct(p_currency, p_identities, p_debits, p_credits, p_amounts, p_kinds,
                                p_references, p_created_ms, p_records);
END $$;

CREATE FUNCTION ledger_post_distinct(
    p_currency text, p_identities bytea[], p_debits bigint[], p_credits bigint[],
    p_amounts bigint[], p_kinds smallint[], p_references text[], p_created_ms bigint,
    p_records bytea[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    posted bigint;
BEGIN
    WITH said AS (
        SELECT DISTINCT identity, debit, credit, amount, kind, reference, record
        FROM unnest(p_identities, p_debits, p_credits, p_amounts, p_kinds, p_references, p_records)
            AS t (identity, debit, credit, amount, kind, reference, record)
    ), once AS (
        SELECT count(DISTINCT identity) AS identities, count(*) AS contents,
               array_agg(identity) AS identity, array_agg(debit) AS debit,
               array_agg(credit) AS credit, array_agg(amount) AS amount, array_agg(kind) AS kind,
               array_agg(reference) AS reference, array_agg(record) AS record
        FROM said
    )
    SELECT CASE WHEN once.identities = contents THEN ledger_post(
        p_currency, identity, debit, credit, amount, kind, reference, p_created_ms, record) END
    INTO posted FROM once;
    IF posted IS NULL THEN
        RAISE EXCEPTION 'an identity came with two contents' USING ERRCODE = 'CB001';
    END IF;
    RETURN posted;
END $$;
