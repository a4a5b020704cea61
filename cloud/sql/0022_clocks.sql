-- Epochs whose entries were later than the issuer's own clock when they came: nobody is convicted by
-- that, for a clock may be wrong. Of each, the entry that was furthest ahead.
CREATE TABLE clock_ahead (
    epoch_id bigint PRIMARY KEY REFERENCES journal_epoch,
    index bigint NOT NULL,
    entry_ms bigint NOT NULL,
    received_ms bigint NOT NULL,
    CHECK (entry_ms > received_ms)
);
