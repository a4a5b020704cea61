-- Evidence that a third party can check, what finds it, and suspensions that go out by list.

-- The self-contained form of a row of evidence (wire.cddl, `fork` and `breach`), once it was asked for.
CREATE TABLE evidence_proof (
    evidence_id bigint PRIMARY KEY REFERENCES journal_evidence,
    proof bytea NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    made_ms bigint NOT NULL
);
-- It is read in pieces.
ALTER TABLE evidence_proof ALTER COLUMN proof SET STORAGE EXTERNAL;
CREATE TRIGGER evidence_proof_append_only BEFORE UPDATE OR DELETE ON evidence_proof
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- SHA-256 of the parts: the same evidence is kept once. Null in rows from before.
ALTER TABLE journal_evidence ADD COLUMN digest bytea CHECK (octet_length(digest) = 32);
CREATE UNIQUE INDEX journal_evidence_once ON journal_evidence (epoch_id, kind, digest);

-- The tree's size that the receipt is under: the journal's own root at that size must be the
-- receipt's. Null in rows from before.
ALTER TABLE collected_receipt ADD COLUMN size bigint;

-- The perfect subtrees before the segment, 32 bytes each: roots inside it are made of them and its
-- leaves. Null in rows from before.
ALTER TABLE journal_segment ADD COLUMN peaks bytea CHECK (octet_length(peaks) % 32 = 0);

-- When the suspension went out on list 1.
ALTER TABLE journal_epoch ADD COLUMN listed_ms bigint;
CREATE INDEX journal_epoch_unlisted ON journal_epoch (epoch_id)
    WHERE state = 'suspended' AND listed_ms IS NULL;

-- The index of the journal's own `close`: nothing but settlements may follow it.
ALTER TABLE journal_epoch ADD COLUMN ended bigint;

-- Notes that wait for their journals are looked at again and again: they are few.
CREATE INDEX note_early ON note (journal, epoch, index) WHERE state = 'early';
