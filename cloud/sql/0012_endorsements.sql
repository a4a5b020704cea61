-- Certificates of TPMs that their makers took back: kept for ever.
-- `certificate`: SHA-256 over the issuer's name in DER, 0 and the serial in decimal digits.

CREATE TABLE endorsement_revocation (
    certificate bytea PRIMARY KEY CHECK (octet_length(certificate) = 32),
    issuer bytea NOT NULL CHECK (octet_length(issuer) BETWEEN 2 AND 1024),
    serial text NOT NULL CHECK (serial ~ '^[0-9a-f]{1,42}$'),
    revoked_by bigint NOT NULL REFERENCES officer,
    revoked_ms bigint NOT NULL
);
CREATE TRIGGER endorsement_revocation_append_only BEFORE UPDATE OR DELETE ON endorsement_revocation
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The path of a TPM's endorsement certificate, by the same hashes: whose maker takes one back is
-- found. Of gateways that enrolled before this, nobody knows it.
ALTER TABLE gateway_attestation ADD COLUMN certificates bytea[] NOT NULL DEFAULT '{}';
