-- Online wallets, value on its way to a journal, and currency exchange.

CREATE TABLE online_wallet (
    wallet text PRIMARY KEY CHECK (length(wallet) BETWEEN 1 AND 64),
    holder text NOT NULL CHECK (length(holder) BETWEEN 1 AND 64),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    account_id bigint NOT NULL UNIQUE REFERENCES ledger_account,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'frozen', 'closed')),
    opened_ms bigint NOT NULL
);
CREATE INDEX online_wallet_holder ON online_wallet (holder);

-- Where a wallet in a journal redeems to, when it is not the online wallet of the same text.
CREATE TABLE redeem_target (
    offline_wallet text PRIMARY KEY CHECK (length(offline_wallet) BETWEEN 1 AND 64),
    wallet text NOT NULL REFERENCES online_wallet
);

-- What a holder sends to a wallet in a journal. `sequence` is the grant's, once it is signed.
CREATE TABLE funding (
    funding_id bytea PRIMARY KEY CHECK (octet_length(funding_id) = 32),
    wallet text NOT NULL REFERENCES online_wallet,
    journal bytea NOT NULL CHECK (octet_length(journal) = 20),
    epoch bigint NOT NULL CHECK (epoch >= 0),
    offline_wallet bytea NOT NULL CHECK (octet_length(offline_wallet) = 20),
    amount bigint NOT NULL CHECK (amount BETWEEN 1 AND 1000000000000),
    currency text NOT NULL,
    state text NOT NULL DEFAULT 'held'
        CHECK (state IN ('held', 'granted', 'applied', 'returned')),
    sequence bigint,
    grant_cose bytea,
    created_ms bigint NOT NULL,
    CONSTRAINT funding_granted CHECK (
        (sequence IS NULL) = (grant_cose IS NULL)
        AND (state NOT IN ('granted', 'applied') OR sequence IS NOT NULL)),
    CONSTRAINT funding_sequence UNIQUE (journal, epoch, sequence)
);
CREATE INDEX funding_open ON funding (journal, epoch) WHERE state IN ('held', 'granted');

-- A dealer's standing offer: its wallet that receives, its wallet that pays, and the rate in minor
-- units of the target for one minor unit of the source, as an exact ratio.
CREATE TABLE exchange_offer (
    offer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    receives text NOT NULL REFERENCES online_wallet,
    pays text NOT NULL REFERENCES online_wallet CHECK (pays <> receives),
    source_currency text NOT NULL,
    target_currency text NOT NULL CHECK (target_currency <> source_currency),
    numerator bigint NOT NULL CHECK (numerator BETWEEN 1 AND 1000000000),
    denominator bigint NOT NULL CHECK (denominator BETWEEN 1 AND 1000000000),
    valid_until_ms bigint NOT NULL,
    created_ms bigint NOT NULL
);
CREATE INDEX exchange_offer_pair
    ON exchange_offer (source_currency, target_currency, offer_id DESC);

CREATE TABLE exchange_quote (
    quote_id bytea PRIMARY KEY CHECK (octet_length(quote_id) = 32),
    offer_id bigint NOT NULL REFERENCES exchange_offer,
    holder text NOT NULL,
    source text NOT NULL REFERENCES online_wallet,
    target text NOT NULL REFERENCES online_wallet,
    source_amount bigint NOT NULL CHECK (source_amount BETWEEN 1 AND 1000000000000),
    target_amount bigint NOT NULL CHECK (target_amount BETWEEN 1 AND 1000000000000),
    numerator bigint NOT NULL,
    denominator bigint NOT NULL,
    remainder bigint NOT NULL,
    valid_until_ms bigint NOT NULL,
    created_ms bigint NOT NULL,
    accepted_ms bigint,
    -- Nothing is rounded away in silence: what the holder does not get is stated.
    CONSTRAINT exchange_quote_exact CHECK (
        source_amount::numeric * numerator
            = target_amount::numeric * denominator + remainder
        AND remainder >= 0 AND remainder < denominator)
);
