-- What gateways tell of their audit logs, and where two reports of one gateway contradict.

-- The newest place that was told: its row and hash, the signed report that told it (an envelope,
-- `up`), and how long the journal was then, by which later reports are known.
CREATE TABLE gateway_trail (
    journal bytea NOT NULL REFERENCES gateway,
    epoch bigint NOT NULL,
    row bigint NOT NULL CHECK (row >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    size bigint NOT NULL CHECK (size >= 0),
    report bytea NOT NULL,
    told_ms bigint NOT NULL,
    PRIMARY KEY (journal, epoch)
);
ALTER TABLE gateway_trail ALTER COLUMN report SET STORAGE EXTERNAL;

-- Two reports that cannot both tell of one log, kept for ever. `row`: of the earlier one's head;
-- `told`: of the later one's, null where it tells none.
CREATE TABLE trail_finding (
    finding_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal bytea NOT NULL REFERENCES gateway,
    epoch bigint NOT NULL,
    code text NOT NULL,
    row bigint NOT NULL,
    told bigint,
    earlier bytea NOT NULL,
    later bytea NOT NULL,
    found_ms bigint NOT NULL,
    UNIQUE (journal, epoch, code, row)
);
ALTER TABLE trail_finding ALTER COLUMN earlier SET STORAGE EXTERNAL,
    ALTER COLUMN later SET STORAGE EXTERNAL;
CREATE TRIGGER trail_finding_append_only BEFORE UPDATE OR DELETE ON trail_finding
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
