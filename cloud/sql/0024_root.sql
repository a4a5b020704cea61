-- The root's key may be kept away from here: its row has the certificate alone.
ALTER TABLE issuer_key ALTER COLUMN sealed DROP NOT NULL;
ALTER TABLE issuer_key ADD CONSTRAINT issuer_key_is_held
    CHECK (sealed IS NOT NULL OR certificate IS NOT NULL);

-- Keys that wait for a certificate by a root which is kept elsewhere; none is in use.
CREATE TABLE issuer_key_waiting (
    name text PRIMARY KEY,
    sealed bytea NOT NULL,
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    created_ms bigint NOT NULL
);
