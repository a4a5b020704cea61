-- What gateways have to prove of their key hardware, and what they proved.

-- What a gateway that enrols with this token has to prove; `refused`: how often it did not.
ALTER TABLE enrolment_token
    ADD COLUMN level text NOT NULL DEFAULT 'tpm' CHECK (level IN ('tpm', 'pkcs11', 'software')),
    ADD COLUMN pcr_policy text NOT NULL DEFAULT 'firmware',
    ADD COLUMN refused int NOT NULL DEFAULT 0 CHECK (refused >= 0);

-- What was asked of a gateway that enrols. A row is taken away when it is used, and when it is old.
CREATE TABLE enrolment_challenge (
    challenge_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    nonce bytea NOT NULL UNIQUE CHECK (octet_length(nonce) = 32),
    token_hash bytea NOT NULL REFERENCES enrolment_token,
    -- SHA-256 of what only the TPM of both keys can read out of the credential.
    answer_hash bytea NOT NULL CHECK (octet_length(answer_hash) = 32),
    -- TPMT_PUBLIC, and certificates in DER, as the gateway showed them.
    attestation_key bytea NOT NULL,
    endorsement_key bytea NOT NULL,
    certificates bytea[] NOT NULL,
    expires_ms bigint NOT NULL
);
CREATE INDEX enrolment_challenge_token ON enrolment_challenge (token_hash, challenge_id);

-- What an enrolled gateway is held to. Of a TPM: the keys that it proved, the counter's index
-- (TPMS_NV_PUBLIC) and the highest value certified, the image that fitted last, and the newest
-- question: its nonce, the one that was answered before, and the signed object.
CREATE TABLE gateway_attestation (
    journal bytea PRIMARY KEY REFERENCES gateway,
    level text NOT NULL CHECK (level IN ('tpm', 'pkcs11', 'software')),
    pcr_policy text,
    attestation_key bytea,
    endorsement_key bytea,
    counter_index bytea,
    counter bigint,
    image text,
    nonce bytea CHECK (octet_length(nonce) = 32),
    answered bytea CHECK (octet_length(answered) = 32),
    question bytea,
    checked_ms bigint,
    CONSTRAINT gateway_attestation_proven CHECK (level <> 'tpm' OR num_nulls(pcr_policy,
        attestation_key, endorsement_key, counter_index, counter, image, nonce, question,
        checked_ms) = 0)
);
-- Gateways that enrolled before anything was asked of them: what keeps their keys is not known.
INSERT INTO gateway_attestation (journal, level) SELECT journal, 'software' FROM gateway;
