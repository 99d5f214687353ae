-- Which keys each replica signs with, as it said last: for people. A key that is replaced leaves its
-- row for a week.
CREATE TABLE replica (
    environment  TEXT NOT NULL,
    manifest_key BLOB NOT NULL CHECK (length(manifest_key) = 32), -- Ed25519, public
    head_key     BLOB NOT NULL CHECK (length(head_key) = 32),
    name         TEXT NOT NULL,
    seen_ms      INTEGER NOT NULL,
    PRIMARY KEY (environment, manifest_key, head_key)
) STRICT, WITHOUT ROWID;
