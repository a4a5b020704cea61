-- Where entries are, by their leaf hashes: a refund names the payment by it alone. Filled after the
-- segments are stored, so that storing them costs nothing more. No foreign keys: whoever fills this
-- must never wait for a report that holds the row of its epoch.

CREATE TABLE journal_leaf (
    epoch_id bigint NOT NULL,
    -- The first bytes of the leaf hash: several entries may share them.
    lead bytea NOT NULL CHECK (octet_length(lead) = 8),
    index bigint NOT NULL,
    PRIMARY KEY (epoch_id, lead, index)
);

-- How many of an epoch's entries are in it.
CREATE TABLE journal_leaf_end (
    epoch_id bigint PRIMARY KEY,
    size bigint NOT NULL CHECK (size >= 0)
);
