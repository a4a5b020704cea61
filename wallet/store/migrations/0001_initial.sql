-- The journal of the current epoch.
CREATE TABLE entries (idx INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;

CREATE TABLE nodes (
    level INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, checkpoint BLOB NOT NULL) STRICT;

CREATE TABLE snapshots (size INTEGER PRIMARY KEY, state BLOB NOT NULL) STRICT;

-- Lookup projections: sorted runs of fixed-width records, cut into blocks (wallet/store/runs.py).
CREATE TABLE runs (
    projection INTEGER NOT NULL,
    run INTEGER NOT NULL,
    records INTEGER NOT NULL,
    first_block INTEGER NOT NULL,
    fences BLOB NOT NULL,
    PRIMARY KEY (projection, run)
) STRICT;

CREATE TABLE run_blocks (block INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;

CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE hosted_wallets (
    wallet BLOB PRIMARY KEY,
    sealed_key BLOB NOT NULL,
    pin_hash TEXT NOT NULL,
    tries INTEGER NOT NULL,
    locked_until_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    kind TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    object BLOB NOT NULL,
    PRIMARY KEY (kind, sequence)
) STRICT;

CREATE TABLE collected_receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    entry BLOB NOT NULL,
    receipt BLOB NOT NULL,
    state TEXT NOT NULL
) STRICT;

CREATE TABLE requests (
    identity BLOB PRIMARY KEY,
    request BLOB NOT NULL,
    payee BLOB NOT NULL,
    reference TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX requests_by_reference ON requests (reference);
CREATE INDEX requests_by_expiry ON requests (expires_ms);

CREATE TABLE answers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    UNIQUE (scope, key)
) STRICT;
CREATE INDEX answers_by_expiry ON answers (expires_ms);

CREATE TABLE terminals (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    certificate_serial BLOB NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    action TEXT NOT NULL,
    details BLOB NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    time_ms INTEGER NOT NULL
) STRICT;
